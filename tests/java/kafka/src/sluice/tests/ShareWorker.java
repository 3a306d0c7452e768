package sluice.tests;

import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.*;

/** A worker of a share group that notes what it receives and what the broker took, until it is killed. */
public final class ShareWorker {
    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", args[0]);
        properties.put("group.id", args[2]);
        properties.put("share.acknowledgement.mode", "explicit");
        properties.put("max.poll.records", "20");
        properties.put("share.acquire.mode", "record_limit");
        long pid = ProcessHandle.current().pid();
        try (var journal = new FileOutputStream(args[3], true);
             var consumer = new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(args[1]));
            while (true) {
                List<String> places = new ArrayList<>();
                for (var record : consumer.poll(Duration.ofMillis(300))) {
                    String place = record.partition() + ", " + record.offset();
                    note(journal, "[\"got\", " + pid + ", " + place + ", " + record.deliveryCount().orElse((short) 0)
                        + ", " + System.currentTimeMillis() / 1000.0 + "]");
                    Thread.sleep(20);
                    consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                    places.add(place);
                }
                boolean taken = consumer.commitSync().values().stream().allMatch(Optional::isEmpty);
                for (String place : places)
                    note(journal, "[\"" + (taken ? "done" : "unsure") + "\", " + pid + ", " + place + "]");
            }
        }
    }

    private static void note(FileOutputStream journal, String line) throws Exception {
        journal.write((line + "\n").getBytes(StandardCharsets.UTF_8));
    }
}
