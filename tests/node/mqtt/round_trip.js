// MQTT.js, 3.1.1 and 5, over TCP and WebSocket: each QoS there and back. Arguments: topic prefix, URLs.
const mqtt = require("mqtt");
const [, , prefix, ...urls] = process.argv;

async function roundTrip(url, protocolVersion, number) {
  const client = await mqtt.connectAsync(url, { protocolVersion, clientId: `${prefix}-js-${number}`, reconnectPeriod: 0 });
  const topic = `${prefix}/js/${number}`;
  const arrived = [];
  let wake = () => {};
  client.on("message", (name, payload, packet) => {
    arrived.push(`${name} ${packet.qos} ${payload}`);
    wake();
  });
  await client.subscribeAsync(`${topic}/#`, { qos: 2 });
  for (const qos of [0, 1, 2]) {
    await client.publishAsync(`${topic}/${qos}`, `payload ${qos}`, { qos });
    while (arrived.length <= qos) await new Promise((resolve) => (wake = resolve));
    if (arrived[qos] !== `${topic}/${qos} ${qos} payload ${qos}`) throw new Error(`got ${arrived[qos]}`);
  }
  await client.endAsync();
}

(async () => {
  let number = 0;
  for (const url of urls) for (const version of [4, 5]) await roundTrip(url, version, ++number);
  console.log("ok");
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
