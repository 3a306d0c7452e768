package sluice.tests;

import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.BooleanSupplier;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.serialization.*;

/** Flows of the Java clients against a cluster: exits with 0 when everything held, else with the trace of what did not. */
public final class Clients {
    private final String bootstrap;

    private Clients(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        Clients clients = new Clients(args[0]);
        try {
            switch (args[1]) {
                case "codecs" -> clients.codecs(args[2]);
                case "group" -> clients.group(args[2], args[3], args[4]);
                case "transactions" -> clients.transactions(args[2], args[3]);
                case "epochs" -> clients.epochs(args[2]);
                case "admin" -> clients.admin(args[2]);
                case "calls" -> clients.calls(args[2], args[3]);
                case "share" -> clients.share(args[2], args[3]);
                default -> throw new IllegalArgumentException(args[1]);
            }
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);
        }
        System.out.println("ok");
        System.exit(0);
    }

    private static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    private static void eventually(BooleanSupplier holds, String what) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (!holds.getAsBoolean()) {
            check(System.nanoTime() < deadline, what);
            Thread.sleep(50);
        }
    }

    private Properties common() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("default.api.timeout.ms", "30000");
        properties.put("request.timeout.ms", "15000");
        return properties;
    }

    private KafkaProducer<String, String> producer(String... more) {
        Properties properties = common();
        properties.put("linger.ms", "20");
        for (int i = 0; i < more.length; i += 2) properties.put(more[i], more[i + 1]);
        return new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String... more) {
        Properties properties = common();
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        for (int i = 0; i < more.length; i += 2) properties.put(more[i], more[i + 1]);
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    private static List<ConsumerRecord<String, String>> read(Consumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (found.size() < count && System.nanoTime() < deadline)
            consumer.poll(Duration.ofMillis(200)).forEach(found::add);
        check(found.size() == count, "read " + found.size() + " records, expected " + count);
        return found;
    }

    private void codecs(String topic) throws Exception {
        List<String> expected = new ArrayList<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var producer = producer("compression.type", codec)) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int i = 0; i < 40; i++) {
                    String value = (codec + " " + i + " ").repeat(20);
                    var record = new ProducerRecord<>(topic, 0, codec + "-" + i, value);
                    record.headers().add("codec", codec.getBytes());
                    sent.add(producer.send(record));
                    expected.add(value);
                }
                for (int i = 0; i < sent.size(); i++)
                    check(sent.get(i).get().offset() == expected.size() - 40 + i, "offsets are not in order");
            }
        }
        try (var consumer = consumer("check.crcs", "true")) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            var found = read(consumer, expected.size());
            check(found.stream().map(ConsumerRecord::value).toList().equals(expected), "values differ");
            check(new String(found.get(0).headers().lastHeader("codec").value()).equals("none"), "header differs");
            check(consumer.endOffsets(List.of(partition)).get(partition) == expected.size(), "end offset");
            check(consumer.offsetsForTimes(Map.of(partition, 0L)).get(partition).offset() == 0, "offset of a time");
        }
    }

    /** One member reads and commits; a second joins and takes its share; what was committed is not read again. */
    private void group(String topic, String group, String protocol) throws Exception {
        int count = 60;
        try (var producer = producer()) {
            for (int i = 0; i < count; i++) producer.send(new ProducerRecord<>(topic, i % 4, "k" + i, "v" + i));
            producer.flush();
        }
        var first = consumer("group.id", group, "group.protocol", protocol);
        first.subscribe(List.of(topic));
        Set<String> seen = read(first, count).stream().map(ConsumerRecord::value).collect(Collectors.toSet());
        check(seen.size() == count, "doubles");
        first.commitSync();
        check(first.groupMetadata().groupId().equals(group), "group metadata");
        var stop = new java.util.concurrent.atomic.AtomicBoolean();
        var shares = new ConcurrentHashMap<String, Set<TopicPartition>>();
        var extra = ConcurrentHashMap.<String>newKeySet();
        Callable<Void> drain = () -> {
            try (var second = consumer("group.id", group, "group.protocol", protocol)) {
                second.subscribe(List.of(topic));
                while (!stop.get()) {
                    second.poll(Duration.ofMillis(50)).forEach(record -> extra.add(record.value()));
                    shares.put("second", Set.copyOf(second.assignment()));
                }
            }
            return null;
        };
        var threads = Executors.newSingleThreadExecutor();
        Future<Void> other = threads.submit(drain);
        eventually(() -> {
            first.poll(Duration.ofMillis(50)).forEach(record -> extra.add(record.value()));
            shares.put("first", Set.copyOf(first.assignment()));
            return shares.getOrDefault("second", Set.of()).size() == 2 && shares.get("first").size() == 2;
        }, "the group never shared four partitions between two members: " + shares);
        check(Collections.disjoint(shares.get("first"), shares.get("second")), "a partition has two owners");
        check(extra.isEmpty(), "committed records were read again: " + extra);
        stop.set(true);
        other.get(30, TimeUnit.SECONDS);
        eventually(() -> {
            first.poll(Duration.ofMillis(50));
            return first.assignment().size() == 4;
        }, "the first member never got everything back");
        try (var admin = Admin.create(common())) {
            var described = admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get();
            check(described.members().size() == 1, "members: " + described);
            check(described.type().toString().equalsIgnoreCase(protocol), "type: " + described.type());
            var committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            check(committed.values().stream().mapToLong(OffsetAndMetadata::offset).sum() == count, "offsets " + committed);
        }
        first.close();
        threads.shutdown();
    }

    /** Read, process, write exactly once; aborted data stays hidden; a second producer of the same id fences the first. */
    private void transactions(String in, String out) throws Exception {
        int count = 30;
        try (var producer = producer()) {
            for (int i = 0; i < count; i++) producer.send(new ProducerRecord<>(in, "k" + i, "v" + i));
            producer.flush();
        }
        String group = out + "-group", id = out + "-tx";
        var writer = producer("transactional.id", id);
        writer.initTransactions();
        try (var reader = consumer("group.id", group, "isolation.level", "read_committed", "max.poll.records", "7")) {
            reader.subscribe(List.of(in));
            int done = 0, round = 0;
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(40);
            while (done < count) {
                check(System.nanoTime() < deadline, "only " + done + " processed");
                var batch = reader.poll(Duration.ofMillis(200));
                if (batch.isEmpty()) continue;
                writer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (var record : batch) {
                    writer.send(new ProducerRecord<>(out, record.key(), record.value().toUpperCase()));
                    offsets.put(new TopicPartition(record.topic(), record.partition()),
                        new OffsetAndMetadata(record.offset() + 1));
                }
                if (round++ == 1) {
                    // thrown away: the same records are read and written again
                    writer.flush();
                    writer.abortTransaction();
                    Map<TopicPartition, Long> back = new HashMap<>();
                    for (var record : batch)
                        back.merge(new TopicPartition(record.topic(), record.partition()), record.offset(), Math::min);
                    back.forEach(reader::seek);
                    continue;
                }
                writer.sendOffsetsToTransaction(offsets, reader.groupMetadata());
                writer.commitTransaction();
                done += batch.count();
            }
        }
        var usurper = producer("transactional.id", id);
        usurper.initTransactions();
        boolean fenced = false;
        try {
            writer.beginTransaction();
            writer.send(new ProducerRecord<>(out, "x", "fenced")).get();
            writer.commitTransaction();
        } catch (ProducerFencedException | InvalidProducerEpochException expected) {
            fenced = true;
        } catch (ExecutionException wrapped) {
            fenced = wrapped.getCause() instanceof ProducerFencedException
                || wrapped.getCause() instanceof InvalidProducerEpochException;
            if (!fenced) throw wrapped;
        }
        check(fenced, "the first producer was not fenced");
        writer.close(Duration.ZERO);
        usurper.close();
        List<TopicPartition> partitions;
        try (var all = consumer("isolation.level", "read_committed")) {
            partitions = all.partitionsFor(out).stream().map(p -> new TopicPartition(out, p.partition())).toList();
            all.assign(partitions);
            all.seekToBeginning(partitions);
            Set<String> values = read(all, count).stream().map(ConsumerRecord::value).collect(Collectors.toSet());
            check(values.size() == count && !values.contains("fenced"), "committed: " + values);
            check(all.poll(Duration.ofMillis(300)).isEmpty(), "more than what was committed");
        }
        try (var all = consumer("isolation.level", "read_uncommitted")) {
            all.assign(partitions);
            all.seekToBeginning(partitions);
            check(read(all, count + 7).size() == count + 7, "the aborted records are in the log");
        }
        try (var admin = Admin.create(common())) {
            long sum = 0;
            for (var offset : admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values())
                sum += offset.offset();
            check(sum == count, "committed input offsets sum to " + sum);
            check(admin.describeTransactions(List.of(id)).description(id).get().producerEpoch() >= 0, "described");
            check(admin.listTransactions().all().get().stream().anyMatch(t -> t.transactionalId().equals(id)), "listed");
        }
    }

    /**
     * KIP-890, second part: where transaction.version is 2, EndTxn 5 raises the epoch with every transaction and the
     * client goes on with the new one, so that a straggler of the transaction before is fenced.
     */
    private void epochs(String topic) throws Exception {
        String id = topic + "-tx";
        try (var admin = Admin.create(common()); var writer = producer("transactional.id", id)) {
            var features = admin.describeFeatures().featureMetadata().get().finalizedFeatures();
            check(features.get("transaction.version").maxVersionLevel() == 2, "features " + features);
            writer.initTransactions();
            List<Integer> epochs = new ArrayList<>();
            List<Long> producers = new ArrayList<>();
            for (int round = 0; round < 6; round++) {
                writer.beginTransaction();
                writer.send(new ProducerRecord<>(topic, 0, "k", "v" + round)).get();
                // The partition was added by the Produce request itself (version 12 and up): no AddPartitionsToTxn.
                var open = now(admin.describeTransactions(List.of(id)).description(id));
                check(open.state() == TransactionState.ONGOING, "state " + open.state());
                check(open.topicPartitions().equals(Set.of(new TopicPartition(topic, 0))), "partitions " + open);
                epochs.add(open.producerEpoch());
                producers.add(open.producerId());
                if (round % 2 == 0) writer.commitTransaction();
                else writer.abortTransaction();
                eventually(() -> {
                    var state = now(admin.describeTransactions(List.of(id)).description(id)).state();
                    return state == TransactionState.COMPLETE_COMMIT || state == TransactionState.COMPLETE_ABORT;
                }, "the transaction was never finished");
            }
            check(Set.copyOf(producers).size() == 1, "producer ids " + producers);
            for (int i = 1; i < epochs.size(); i++)
                check(epochs.get(i) == epochs.get(i - 1) + 1, "the epoch goes up by one a transaction: " + epochs);
        }
        try (var all = consumer("isolation.level", "read_committed")) {
            all.assign(List.of(new TopicPartition(topic, 0)));
            all.seekToBeginning(all.assignment());
            check(read(all, 3).stream().map(ConsumerRecord::value).toList().equals(List.of("v0", "v2", "v4")), "values");
        }
    }

    private void admin(String prefix) throws Exception {
        try (var admin = Admin.create(common())) {
            var cluster = admin.describeCluster();
            check(cluster.nodes().get().size() == 1 && !cluster.clusterId().get().isEmpty(), "cluster");
            String topic = prefix + "-topic";
            var created = admin.createTopics(List.of(
                new NewTopic(topic, 3, (short) 1).configs(Map.of("retention.ms", "60000"))));
            created.all().get();
            check(created.numPartitions(topic).get() == 3, "created partitions");
            check(!created.topicId(topic).get().equals(Uuid.ZERO_UUID), "topic id");
            try {
                admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
                check(false, "created twice");
            } catch (ExecutionException expected) {
                check(expected.getCause() instanceof TopicExistsException, "" + expected);
            }
            check(admin.listTopics().names().get().contains(topic), "listed");
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            check(described.partitions().size() == 3, "described");
            check(described.partitions().get(0).isr().size() == 1, "in-sync replicas");
            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(
                new AlterConfigOp(new ConfigEntry("max.message.bytes", "5000"), AlterConfigOp.OpType.SET)))).all().get();
            eventually(() -> value(admin, resource, "max.message.bytes").equals("5000"), "config was not set");
            check(value(admin, resource, "retention.ms").equals("60000"), "another config was lost");
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            eventually(() -> partitions(admin, topic) == 5, "partitions were not added");
            long now = System.currentTimeMillis();
            try (var producer = producer()) {
                for (int i = 0; i < 10; i++) producer.send(new ProducerRecord<>(topic, 0, now + i, "k", "v"));
                producer.flush();
            }
            TopicPartition zero = new TopicPartition(topic, 0);
            check(offset(admin, zero, OffsetSpec.latest()) == 10, "latest");
            check(offset(admin, zero, OffsetSpec.forTimestamp(now + 4)) == 4, "of a timestamp");
            check(offset(admin, zero, OffsetSpec.maxTimestamp()) == 9, "of the greatest timestamp");
            check(admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(3))).lowWatermarks().get(zero).get()
                .lowWatermark() == 3, "records deleted");
            check(offset(admin, zero, OffsetSpec.earliest()) == 3, "earliest");
            String group = prefix + "-group";
            admin.alterConsumerGroupOffsets(group, Map.of(zero, new OffsetAndMetadata(7, "note"))).all().get();
            var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            check(offsets.get(zero).offset() == 7 && offsets.get(zero).metadata().equals("note"), "group offsets");
            check(admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), "group listed");
            admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get();
            admin.deleteConsumerGroups(List.of(group)).all().get();
            AclBinding binding = new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, topic, PatternType.PREFIXED),
                new AccessControlEntry("User:" + prefix, "*", AclOperation.READ, AclPermissionType.ALLOW));
            admin.createAcls(List.of(binding)).all().get();
            eventually(() -> acls(admin, binding.toFilter()).equals(List.of(binding)), "ACL not there");
            check(admin.deleteAcls(List.of(binding.toFilter())).all().get().size() == 1, "ACL deleted");
            var salt = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096);
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(prefix, salt, "secret"))).all().get();
            eventually(() -> iterations(admin, prefix) == 4096, "user not there");
            admin.alterUserScramCredentials(List.of(
                new UserScramCredentialDeletion(prefix, ScramMechanism.SCRAM_SHA_256))).all().get();
            var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, prefix));
            admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
                List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1000.0))))).all().get();
            eventually(() -> quota(admin, prefix, entity) == 1000.0, "quota not there");
            admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
                List.of(new ClientQuotaAlteration.Op("producer_byte_rate", null))))).all().get();
            int node = cluster.nodes().get().iterator().next().id();
            check(!admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node).isEmpty(), "log dirs");
            var broker = new ConfigResource(ConfigResource.Type.BROKER, "" + node);
            check(!admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().isEmpty(), "broker configs");
            check(admin.describeProducers(List.of(zero)).all().get().get(zero).activeProducers().size() == 1, "producers");
            admin.describeFeatures().featureMetadata().get();
            admin.electLeaders(ElectionType.PREFERRED, Set.of(zero)).partitions().get();
            admin.deleteTopics(List.of(topic)).all().get();
            eventually(() -> !names(admin).contains(topic), "topic still there");
        }
    }

    /**
     * Every call that the Admin interface has, in its simplest form: each is answered, be it with a refusal of its own,
     * and none with "unsupported version" (but where Kafka says so too) or not at all.
     */
    private void calls(String topic, String prefix) throws Exception {
        try (var admin = Admin.create(common())) {
            var zero = new TopicPartition(topic, 0);
            var replica = new TopicPartitionReplica(topic, 0, admin.describeCluster().nodes().get().iterator().next().id());
            String group = prefix + "-group", none = prefix + "-none";
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            var offset = Map.of(zero, new OffsetAndMetadata(0));
            admin.alterConsumerGroupOffsets(group, offset).all().get();
            String logDir = admin.describeLogDirs(List.of(replica.brokerId())).allDescriptions().get()
                .get(replica.brokerId()).keySet().iterator().next();
            Map<String, Callable<KafkaFuture<?>>> calls = new TreeMap<>();
            calls.put("listTopics", () -> admin.listTopics().names());
            calls.put("describeTopics", () -> admin.describeTopics(List.of(topic)).allTopicNames());
            calls.put("createPartitions", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all());
            calls.put("deleteTopics", () -> admin.deleteTopics(List.of(none)).all());
            calls.put("describeCluster", () -> admin.describeCluster().clusterId());
            calls.put("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY).values());
            calls.put("createAcls", () -> admin.createAcls(List.of()).all());
            calls.put("deleteAcls", () -> admin.deleteAcls(List.of(new AclBindingFilter(
                new ResourcePatternFilter(ResourceType.TOPIC, none, PatternType.LITERAL),
                AccessControlEntryFilter.ANY))).all());
            calls.put("describeConfigs", () -> admin.describeConfigs(List.of(resource)).all());
            calls.put("incrementalAlterConfigs", () -> admin.incrementalAlterConfigs(Map.of(resource, List.of())).all());
            calls.put("alterReplicaLogDirs", () -> admin.alterReplicaLogDirs(Map.of(replica, logDir)).all());
            calls.put("describeLogDirs", () -> admin.describeLogDirs(List.of(replica.brokerId())).allDescriptions());
            calls.put("describeReplicaLogDirs", () -> admin.describeReplicaLogDirs(List.of(replica)).all());
            calls.put("deleteRecords", () -> admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(0))).all());
            calls.put("createDelegationToken", () -> admin.createDelegationToken().delegationToken());
            calls.put("renewDelegationToken", () -> admin.renewDelegationToken(new byte[] {1}).expiryTimestamp());
            calls.put("expireDelegationToken", () -> admin.expireDelegationToken(new byte[] {1}).expiryTimestamp());
            calls.put("describeDelegationToken", () -> admin.describeDelegationToken().delegationTokens());
            calls.put("describeConsumerGroups", () -> admin.describeConsumerGroups(List.of(group)).all());
            calls.put("describeClassicGroups", () -> admin.describeClassicGroups(List.of(group)).all());
            calls.put("describeShareGroups", () -> admin.describeShareGroups(List.of(none)).all());
            calls.put("describeStreamsGroups", () -> admin.describeStreamsGroups(List.of(none)).all());
            calls.put("listGroups", () -> admin.listGroups().all());
            calls.put("listConsumerGroupOffsets", () -> admin.listConsumerGroupOffsets(group).all());
            calls.put("listStreamsGroupOffsets", () -> admin.listStreamsGroupOffsets(
                Map.of(group, new ListStreamsGroupOffsetsSpec())).all());
            calls.put("listShareGroupOffsets", () -> admin.listShareGroupOffsets(
                Map.of(none, new ListShareGroupOffsetsSpec())).all());
            calls.put("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets(group, offset).all());
            calls.put("alterStreamsGroupOffsets", () -> admin.alterStreamsGroupOffsets(group, offset).all());
            calls.put("alterShareGroupOffsets", () -> admin.alterShareGroupOffsets(prefix + "-share", Map.of(zero, 0L)).all());
            calls.put("deleteConsumerGroupOffsets", () -> admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all());
            calls.put("deleteStreamsGroupOffsets", () -> admin.deleteStreamsGroupOffsets(group, Set.of(zero)).all());
            calls.put("deleteShareGroupOffsets", () -> admin.deleteShareGroupOffsets(none, Set.of(topic)).all());
            calls.put("deleteConsumerGroups", () -> admin.deleteConsumerGroups(List.of(none)).all());
            calls.put("deleteShareGroups", () -> admin.deleteShareGroups(List.of(none)).all());
            calls.put("deleteStreamsGroups", () -> admin.deleteStreamsGroups(List.of(none)).all());
            calls.put("removeMembersFromConsumerGroup", () -> admin.removeMembersFromConsumerGroup(group,
                new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("nobody")))).all());
            calls.put("electLeaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(zero)).all());
            calls.put("alterPartitionReassignments", () -> admin.alterPartitionReassignments(
                Map.of(zero, Optional.empty())).all());
            calls.put("listPartitionReassignments", () -> admin.listPartitionReassignments().reassignments());
            calls.put("listOffsets", () -> admin.listOffsets(Map.of(zero, OffsetSpec.latest())).all());
            calls.put("describeClientQuotas", () -> admin.describeClientQuotas(ClientQuotaFilter.all()).entities());
            calls.put("alterClientQuotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(
                new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, none)), List.of()))).all());
            calls.put("describeUserScramCredentials", () -> admin.describeUserScramCredentials().all());
            calls.put("alterUserScramCredentials", () -> admin.alterUserScramCredentials(List.of(
                new UserScramCredentialDeletion(none, ScramMechanism.SCRAM_SHA_256))).all());
            calls.put("describeFeatures", () -> admin.describeFeatures().featureMetadata());
            calls.put("updateFeatures", () -> admin.updateFeatures(Map.of("group.version",
                new FeatureUpdate((short) 1, FeatureUpdate.UpgradeType.UPGRADE)), new UpdateFeaturesOptions()).all());
            calls.put("describeMetadataQuorum", () -> admin.describeMetadataQuorum().quorumInfo());
            calls.put("unregisterBroker", () -> admin.unregisterBroker(99).all());
            calls.put("unregisterController", () -> admin.unregisterController(99, new UnregisterControllerOptions()).all());
            calls.put("describeProducers", () -> admin.describeProducers(List.of(zero)).all());
            calls.put("describeTransactions", () -> admin.describeTransactions(List.of(none)).all());
            calls.put("listTransactions", () -> admin.listTransactions().all());
            calls.put("abortTransaction", () -> admin.abortTransaction(
                new AbortTransactionSpec(zero, 1, (short) 0, 0)).all());
            calls.put("fenceProducers", () -> admin.fenceProducers(List.of(prefix + "-tx")).all());
            calls.put("forceTerminateTransaction", () -> admin.forceTerminateTransaction(prefix + "-tx",
                new TerminateTransactionOptions()).result());
            calls.put("listConfigResources", () -> admin.listConfigResources().all());
            calls.put("addRaftVoter", () -> admin.addRaftVoter(99, Uuid.randomUuid(),
                Set.of(new RaftVoterEndpoint("CONTROLLER", "127.0.0.1", 9))).all());
            calls.put("removeRaftVoter", () -> admin.removeRaftVoter(99, Uuid.randomUuid()).all());
            Set<String> refusedByVersion = new TreeSet<>();
            for (var call : calls.entrySet()) {
                try {
                    call.getValue().call().get(20, TimeUnit.SECONDS);
                } catch (ExecutionException answered) {
                    check(answered.getCause() instanceof ApiException, call.getKey() + ": " + answered.getCause());
                    check(!(answered.getCause() instanceof org.apache.kafka.common.errors.TimeoutException),
                        call.getKey() + " was not answered: " + answered.getCause());
                    if (answered.getCause() instanceof UnsupportedVersionException) refusedByVersion.add(call.getKey());
                }
            }
            check(refusedByVersion.equals(Set.of("addRaftVoter", "removeRaftVoter")), "unsupported: " + refusedByVersion);
        }
    }

    /** A queue: accepted records never come again, released ones do, rejected ones don't. */
    private void share(String topic, String group) throws Exception {
        try (var admin = Admin.create(common())) {
            var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(
                new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET)))).all().get();
        }
        try (var producer = producer()) {
            for (int i = 0; i < 12; i++) producer.send(new ProducerRecord<>(topic, "k", "v" + i));
            producer.flush();
        }
        Properties properties = common();
        properties.put("group.id", group);
        properties.put("share.acknowledgement.mode", "explicit");
        Map<String, Integer> deliveries = new TreeMap<>();
        try (var consumer = new KafkaShareConsumer<>(properties, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            Set<String> settled = new HashSet<>();
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(40);
            while (settled.size() < 12) {
                check(System.nanoTime() < deadline, "settled only " + settled);
                for (var record : consumer.poll(Duration.ofMillis(300))) {
                    int times = deliveries.merge(record.value(), 1, Integer::sum);
                    check(record.deliveryCount().orElse((short) 0) == times, "delivery count of " + record);
                    check(!settled.contains(record.value()), "settled and delivered again: " + record);
                    int number = Integer.parseInt(record.value().substring(1));
                    if (number % 3 == 0 && times == 1) {
                        consumer.acknowledge(record, AcknowledgeType.RELEASE);
                    } else {
                        consumer.acknowledge(record, number % 3 == 1 ? AcknowledgeType.REJECT : AcknowledgeType.ACCEPT);
                        settled.add(record.value());
                    }
                }
                consumer.commitSync().values().forEach(error -> check(error.isEmpty(), "commit: " + error));
            }
            check(consumer.poll(Duration.ofMillis(500)).isEmpty(), "more than there was");
        }
        for (int i = 0; i < 12; i++)
            check(deliveries.get("v" + i) == (i % 3 == 0 ? 2 : 1), "deliveries " + deliveries);
    }

    private static <T> T now(KafkaFuture<T> future) {
        try {
            return future.get();
        } catch (Exception failure) {
            throw new RuntimeException(failure);
        }
    }

    private static String value(Admin admin, ConfigResource resource, String name) {
        return now(admin.describeConfigs(List.of(resource)).all()).get(resource).get(name).value();
    }

    private static int partitions(Admin admin, String topic) {
        return now(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
    }

    private static long offset(Admin admin, TopicPartition partition, OffsetSpec spec) {
        return now(admin.listOffsets(Map.of(partition, spec)).partitionResult(partition)).offset();
    }

    private static List<AclBinding> acls(Admin admin, AclBindingFilter filter) {
        return List.copyOf(now(admin.describeAcls(filter).values()));
    }

    private static int iterations(Admin admin, String user) {
        try {
            return admin.describeUserScramCredentials(List.of(user)).description(user).get().credentialInfos().get(0)
                .iterations();
        } catch (Exception missing) {
            return -1;
        }
    }

    private static double quota(Admin admin, String user, ClientQuotaEntity entity) {
        var filter = ClientQuotaFilter.containsOnly(
            List.of(ClientQuotaFilterComponent.ofEntity(ClientQuotaEntity.USER, user)));
        return now(admin.describeClientQuotas(filter).entities()).getOrDefault(entity, Map.of())
            .getOrDefault("producer_byte_rate", -1.0);
    }

    private static Set<String> names(Admin admin) {
        return now(admin.listTopics().names());
    }
}
