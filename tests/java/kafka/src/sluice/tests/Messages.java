package sluice.tests;

import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.protocol.*;

/**
 * Kafka's own message classes as a filter: lines of "name version hexadecimal-bytes" in; out, the bytes that the class
 * writes for the message it reads, or "! why not".
 */
public final class Messages {
    private static final String PACKAGE = "org.apache.kafka.common.message.";
    private static final Map<String, Class<?>> CLASSES = new HashMap<>();

    private static Class<?> named(String name) {
        return CLASSES.computeIfAbsent(name, key -> {
            for (String suffix : List.of("Data", ""))
                try {
                    return Class.forName(PACKAGE + key + suffix);
                } catch (ClassNotFoundException another) {
                    continue;
                }
            throw new IllegalArgumentException("Kafka has no message " + key);
        });
    }

    private static String through(String name, short version, byte[] bytes) throws Exception {
        Message message = (Message) named(name).getDeclaredConstructor().newInstance();
        ByteBufferAccessor in = new ByteBufferAccessor(ByteBuffer.wrap(bytes));
        message.read(in, version);
        if (in.remaining() != 0) return "! " + in.remaining() + " bytes left over";
        ByteBufferAccessor out = MessageUtil.toByteBufferAccessor(message, version);
        byte[] written = new byte[out.buffer().remaining()];
        out.buffer().get(written);
        return HexFormat.of().formatHex(written);
    }

    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        var out = new PrintStream(new BufferedOutputStream(System.out), false, StandardCharsets.UTF_8);
        for (String line; (line = in.readLine()) != null; ) {
            String[] field = line.split(" ", -1);
            try {
                out.println(through(field[0], Short.parseShort(field[1]), HexFormat.of().parseHex(field[2])));
            } catch (Exception refused) {
                out.println("! " + refused);
            }
        }
        out.flush();
        System.exit(0);
    }
}
