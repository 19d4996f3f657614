// `node ask.mjs <settings as JSON> <query>`: what node-postgres, as npm has it, gets as the first value.
import { createRequire } from "node:module";

const pg = createRequire(`${process.env.MODULES}/`)("pg");
const client = new pg.Client(JSON.parse(process.argv[2]));
try {
  await client.connect();
  const { rows } = await client.query({ text: process.argv[3], rowMode: "array" });
  console.log(rows[0][0]);
  await client.end();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
