package sluice.tests;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.internals.PluginMetricsImpl;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.metadata.authorizer.StandardAcl;
import org.apache.kafka.metadata.authorizer.StandardAuthorizer;
import org.apache.kafka.server.authorizer.Action;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.authorizer.AuthorizationResult;

/**
 * Decides what it reads from standard input with Kafka's own authorizer.
 *
 * <p>Lines of tab-separated fields: {@code acls <allow if none>} begins a set; {@code acl <resource type> <pattern type>
 * <name> <principal> <host> <operation> <permission>} adds to it; {@code ask <principal> <host> <operation>
 * <resource type> <name>} and {@code any <principal> <host> <operation> <resource type>} print 1 or 0.
 */
public final class Decisions {
    private record Context(KafkaPrincipal principal, InetAddress clientAddress) implements AuthorizableRequestContext {
        @Override
        public String listenerName() {
            return "PLAINTEXT";
        }

        @Override
        public SecurityProtocol securityProtocol() {
            return SecurityProtocol.PLAINTEXT;
        }

        @Override
        public int requestType() {
            return 0;
        }

        @Override
        public int requestVersion() {
            return 0;
        }

        @Override
        public String clientId() {
            return "";
        }

        @Override
        public int correlationId() {
            return 0;
        }
    }

    public static void main(String[] arguments) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new StringBuilder();
        var acls = new HashMap<Uuid, StandardAcl>();
        String allowIfNone = "false";
        StandardAuthorizer authorizer = null;
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] fields = line.split("\t", -1);
            switch (fields[0]) {
                case "acls" -> {
                    acls.clear();
                    allowIfNone = fields[1];
                    authorizer = null;
                }
                case "acl" -> acls.put(
                        Uuid.randomUuid(),
                        new StandardAcl(
                                ResourceType.valueOf(fields[1]),
                                fields[3],
                                PatternType.valueOf(fields[2]),
                                fields[4],
                                fields[5],
                                AclOperation.valueOf(fields[6]),
                                AclPermissionType.valueOf(fields[7])));
                default -> {
                    if (authorizer == null) {
                        authorizer = authorizer(acls, allowIfNone);
                    }
                    out.append(decide(authorizer, fields) == AuthorizationResult.ALLOWED ? '1' : '0');
                }
            }
        }
        System.out.println(out);
    }

    private static StandardAuthorizer authorizer(Map<Uuid, StandardAcl> acls, String allowIfNone) {
        var authorizer = new StandardAuthorizer();
        authorizer.configure(
                Map.of("super.users", "User:root", "allow.everyone.if.no.acl.found", allowIfNone, "node.id", "1"));
        authorizer.withPluginMetrics(new PluginMetricsImpl(new Metrics(), Map.of()));
        authorizer.loadSnapshot(new HashMap<>(acls));
        authorizer.completeInitialLoad();
        return authorizer;
    }

    private static AuthorizationResult decide(StandardAuthorizer authorizer, String[] fields) throws Exception {
        String[] principal = fields[1].split(":", 2);
        var context = new Context(new KafkaPrincipal(principal[0], principal[1]), InetAddress.getByName(fields[2]));
        var operation = AclOperation.valueOf(fields[3]);
        var type = ResourceType.valueOf(fields[4]);
        if (fields[0].equals("any")) {
            return authorizer.authorizeByResourceType(context, operation, type);
        }
        var resource = new ResourcePattern(type, fields[5], PatternType.LITERAL);
        return authorizer.authorize(context, List.of(new Action(operation, resource, 1, true, true))).get(0);
    }
}
