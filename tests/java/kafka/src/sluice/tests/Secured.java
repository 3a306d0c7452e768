package sluice.tests;

import java.io.IOException;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** A producer that shows a certificate and a consumer that shows a signed token, both over TLS. */
public final class Secured {
    private final Path authority;

    private Secured(Path authority) {
        this.authority = authority;
    }

    public static void main(String[] args) throws Exception {
        Secured secured = new Secured(Path.of(args[2]));
        String topic = args[6];
        try (var producer = new KafkaProducer<>(secured.certified(args[0], Path.of(args[3]), Path.of(args[4])),
                new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, 0, "k", "hello")).get(30, TimeUnit.SECONDS);
        }
        try (var consumer = new KafkaConsumer<>(secured.told(args[1], Path.of(args[5])),
                new StringDeserializer(), new StringDeserializer())) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
            List<String> found = new ArrayList<>();
            while (found.isEmpty() && System.nanoTime() < deadline)
                consumer.poll(Duration.ofMillis(200)).forEach(record -> found.add(record.value()));
            if (!found.equals(List.of("hello"))) throw new AssertionError("read " + found);
        }
        System.out.println("ok");
        System.exit(0);
    }

    private Properties trusting(String bootstrap, String protocol) throws IOException {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("security.protocol", protocol);
        properties.put("ssl.truststore.type", "PEM");
        properties.put("ssl.truststore.certificates", Files.readString(authority));
        return properties;
    }

    private Properties certified(String bootstrap, Path certificate, Path key) throws IOException {
        Properties properties = trusting(bootstrap, "SSL");
        properties.put("ssl.keystore.type", "PEM");
        properties.put("ssl.keystore.certificate.chain", Files.readString(certificate));
        properties.put("ssl.keystore.key", Files.readString(key));
        return properties;
    }

    private Properties told(String bootstrap, Path token) throws IOException {
        String security = "org.apache.kafka.common.security.oauthbearer";
        Properties properties = trusting(bootstrap, "SASL_SSL");
        properties.put("sasl.mechanism", "OAUTHBEARER");
        properties.put("sasl.jaas.config", security + ".OAuthBearerLoginModule required;");
        properties.put("sasl.login.callback.handler.class", security + ".OAuthBearerLoginCallbackHandler");
        properties.put("sasl.oauthbearer.token.endpoint.url", token.toUri().toString().replace("file:///", "file:/"));
        return properties;
    }
}
