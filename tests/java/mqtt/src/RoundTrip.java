import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Eclipse Paho's Java clients, 3.1.1 and 5: each QoS there and back. Arguments: server URI, topic prefix. */
public final class RoundTrip {
    private static void three(String server, String prefix) throws Exception {
        BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        MqttClient client = new MqttClient(server, prefix + "-java-3", new MemoryPersistence());
        MqttConnectOptions options = new MqttConnectOptions();
        options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
        client.connect(options);
        client.subscribe(prefix + "/three/#", 2, (topic, message) ->
            arrived.add(topic + " " + message.getQos() + " " + new String(message.getPayload())));
        for (int qos = 0; qos < 3; qos++) {
            client.publish(prefix + "/three/" + qos, ("payload " + qos).getBytes(), qos, false);
            expect(arrived, prefix + "/three/" + qos + " " + qos + " payload " + qos);
        }
        client.disconnect();
        client.close();
    }

    private static void five(String server, String prefix) throws Exception {
        BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        var client = new org.eclipse.paho.mqttv5.client.MqttClient(server, prefix + "-java-5",
            new org.eclipse.paho.mqttv5.client.persist.MemoryPersistence());
        client.setCallback(new org.eclipse.paho.mqttv5.client.MqttCallback() {
            public void disconnected(org.eclipse.paho.mqttv5.client.MqttDisconnectResponse response) {}
            public void mqttErrorOccurred(org.eclipse.paho.mqttv5.common.MqttException exception) {}
            public void messageArrived(String topic, org.eclipse.paho.mqttv5.common.MqttMessage message) {
                arrived.add(topic + " " + message.getQos() + " " + new String(message.getPayload()) + " "
                    + message.getProperties().getContentType());
            }
            public void deliveryComplete(org.eclipse.paho.mqttv5.client.IMqttToken token) {}
            public void connectComplete(boolean reconnect, String uri) {}
            public void authPacketArrived(int code, org.eclipse.paho.mqttv5.common.packet.MqttProperties properties) {}
        });
        client.connect();
        client.subscribe(prefix + "/five/#", 2);
        for (int qos = 0; qos < 3; qos++) {
            var message = new org.eclipse.paho.mqttv5.common.MqttMessage(("payload " + qos).getBytes());
            message.setQos(qos);
            var properties = new org.eclipse.paho.mqttv5.common.packet.MqttProperties();
            properties.setContentType("text/plain");
            message.setProperties(properties);
            client.publish(prefix + "/five/" + qos, message);
            expect(arrived, prefix + "/five/" + qos + " " + qos + " payload " + qos + " text/plain");
        }
        client.disconnect();
        client.close();
    }

    private static void expect(BlockingQueue<String> arrived, String wanted) throws Exception {
        String got = arrived.poll(20, TimeUnit.SECONDS);
        if (!wanted.equals(got)) throw new AssertionError("wanted " + wanted + ", got " + got);
    }

    public static void main(String[] arguments) throws Exception {
        three(arguments[0], arguments[1]);
        five(arguments[0], arguments[1]);
        System.out.println("ok");
        System.exit(0);
    }
}
