// What the tests on a whole platform ask of `@neondatabase/serverless`, set up by a snippet of its documentation page
// that lies beside this file: `node on_lamp.mjs <case>` prints JSON.
import { neon, Pool } from "@neondatabase/serverless";
import "./resolving.mjs";
import "./settings.mjs";

const { DATABASE_URL } = process.env;

const cases = {
  async tagged() {
    const sql = neon(DATABASE_URL);
    return await sql`select name, inet_server_addr() is not null as direct, ${[1, 2]}::int[] as list from place`;
  },

  async transaction() {
    const sql = neon(DATABASE_URL);
    const asked = (tx) => [
      tx`select name, inet_server_addr() is not null as direct from place`,
      tx`select current_setting('transaction_isolation') as level, current_setting('transaction_read_only') as ro,
        current_setting('transaction_deferrable') as d`,
    ];
    return await sql.transaction(asked, { isolationLevel: "Serializable", readOnly: true, deferrable: true });
  },

  async pool() {
    const pool = new Pool({ connectionString: DATABASE_URL, max: 2 });
    const client = await pool.connect();
    await client.query("begin");
    await client.query("create temp table kept (n int) on commit drop");
    await client.query("insert into kept values ($1), ($2)", [1, 2]);
    const inside = await client.query(
      "select name, inet_server_addr() is not null as direct, (select sum(n)::int from kept) as sum from place",
    );
    await client.query("rollback");
    client.release();
    const several = await Promise.all([1, 2, 3].map((n) => pool.query("select name, $1::int as n from place", [n])));
    await pool.end();
    return { inside: inside.rows, several: several.map((one) => one.rows[0]) };
  },
};

process.stdout.write(JSON.stringify(await cases[process.argv[2]]()));
