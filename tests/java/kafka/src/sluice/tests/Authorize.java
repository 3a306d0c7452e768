package sluice.tests;

import java.io.*;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.internals.PluginMetricsImpl;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.security.auth.*;
import org.apache.kafka.metadata.authorizer.*;
import org.apache.kafka.server.authorizer.*;

/**
 * Kafka's StandardAuthorizer as a filter: tab-separated lines in, one line with 1 or 0 per question out.
 *
 * <pre>
 * S  allow-everyone-if-no-acl-found                         a new, empty set of ACLs
 * A  resource name pattern principal host operation permission
 * R  resource name principal host operation                 may this be done?
 * T  resource principal host operation                      may this be done to any resource of the type?
 * </pre>
 */
public final class Authorize {
    private record Peer(KafkaPrincipal principal, InetAddress clientAddress) implements AuthorizableRequestContext {
        public String listenerName() { return "PLAINTEXT"; }
        public SecurityProtocol securityProtocol() { return SecurityProtocol.PLAINTEXT; }
        public int requestType() { return 0; }
        public int requestVersion() { return 0; }
        public String clientId() { return ""; }
        public int correlationId() { return 0; }
    }

    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new PrintStream(new BufferedOutputStream(System.out), false, StandardCharsets.UTF_8);
        var metrics = new Metrics();
        StandardAuthorizer authorizer = null;
        Map<Uuid, StandardAcl> acls = new HashMap<>();
        boolean loaded = false;
        for (String line; (line = in.readLine()) != null; ) {
            String[] field = line.split("\t", -1);
            switch (field[0]) {
                case "S" -> {
                    if (authorizer != null) authorizer.close();
                    authorizer = new StandardAuthorizer();
                    metrics = new Metrics();
                    authorizer.withPluginMetrics(new PluginMetricsImpl(metrics, Map.of()));
                    authorizer.configure(Map.of("super.users", "User:root", "node.id", "1",
                        "allow.everyone.if.no.acl.found", field[1]));
                    acls = new HashMap<>();
                    loaded = false;
                }
                case "A" -> acls.put(new Uuid(1, acls.size() + 1), new StandardAcl(
                    ResourceType.fromCode(Byte.parseByte(field[1])), field[2],
                    PatternType.fromCode(Byte.parseByte(field[3])), field[4], field[5],
                    AclOperation.fromCode(Byte.parseByte(field[6])), AclPermissionType.fromCode(Byte.parseByte(field[7]))));
                default -> {
                    if (!loaded) {
                        authorizer.loadSnapshot(acls);
                        authorizer.completeInitialLoad();
                        loaded = true;
                    }
                    boolean named = field[0].equals("R");
                    int at = named ? 3 : 2;
                    var type = ResourceType.fromCode(Byte.parseByte(field[1]));
                    var peer = new Peer(principal(field[at]), InetAddress.getByName(field[at + 1]));
                    var operation = AclOperation.fromCode(Byte.parseByte(field[at + 2]));
                    var result = named
                        ? authorizer.authorize(peer, List.of(new Action(operation,
                            new ResourcePattern(type, field[2], PatternType.LITERAL), 1, true, true))).get(0)
                        : authorizer.authorizeByResourceType(peer, operation, type);
                    out.println(result == AuthorizationResult.ALLOWED ? '1' : '0');
                }
            }
        }
        out.flush();
        System.exit(0);
    }

    private static KafkaPrincipal principal(String text) {
        int colon = text.indexOf(':');
        return new KafkaPrincipal(text.substring(0, colon), text.substring(colon + 1));
    }
}
