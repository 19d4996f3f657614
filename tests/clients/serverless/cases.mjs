// What the tests ask of `@neondatabase/serverless` and `pg`, both as npm has them: `node cases.mjs <case>` prints JSON.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.MODULES}/`);
const { neon, neonConfig, Pool, Client } = require("@neondatabase/serverless");
const pg = require("pg");

const { SQL_URL, WS_HOST, DATABASE_URL, PG_URL } = process.env;
neonConfig.fetchEndpoint = SQL_URL;
neonConfig.wsProxy = (host, port) => `${WS_HOST}/v2?address=${host}:${port}`;
neonConfig.useSecureWebSocket = false;
neonConfig.poolQueryViaFetch = false;

const FIELDS = [
  "message", "severity", "code", "detail", "hint", "position", "internalPosition", "internalQuery", "where", "schema",
  "table", "column", "dataType", "constraint", "file", "line", "routine",
];
const fieldsOf = (error) => Object.fromEntries(FIELDS.map((name) => [name, error[name] ?? null]));

async function failure(work) {
  try {
    return { succeeded: await work() };
  } catch (error) {
    return { ...fieldsOf(error), name: error.name };
  }
}

const cases = {
  async tagged() {
    const sql = neon(DATABASE_URL);
    const word = "it's \"quoted\" \\ ☃";
    const full = neon(DATABASE_URL, { fullResults: true, arrayMode: true });
    const nothing = sql`where false`;
    return {
      values: await sql`select ${word} as word, ${42}::int as number, ${null}::text as nothing, ${true}::bool as yes,
        ${[1, 2, 3]}::int[] as list, ${{ a: [1, { b: null }] }}::jsonb as object, ${12345678901234567890n}::numeric as big,
        ${new Date(0)}::timestamptz as moment, ${Buffer.from([0, 1, 255])}::bytea as bytes`,
      composed: await sql`select 1 ${nothing}`,
      query: await sql.query("select $1::float8 as x, 'NaN'::float8 as nan", [1.5]),
      full: await full`select 1 as a, 2 as a`,
      empty: await sql``,
    };
  },

  async types() {
    const query = `select 1::int2 a, 2::int4 b, 3::int8 c, 4.5::float4 d, 5.5::float8 e, 6.70::numeric f, true g, 'x'::text h,
      'y'::varchar(10) i, 'z'::char(3) j, '\\x00ff'::bytea k, '2020-01-02'::date l, '2020-01-02 03:04:05+00'::timestamptz m,
      '{"a":[1,2]}'::json n, '{"b":null}'::jsonb o, array[1,2]::int[] p, array[[1,2],[3,4]]::int8[] q,
      array['a"b','c\\d',null,'NULL','{}','']::text[] r, '(1,2)'::point s, '1 day 02:03:04'::interval t,
      array['{"k": "v,}"}']::jsonb[] u, array[true,null]::bool[] v, 'a=>1'::text w, int4range(1,5) x,
      '00000000-0000-0000-0000-000000000001'::uuid y, array[1.5,'NaN']::float8[] z, array[now() - now()]::interval[] za`;
    const client = new pg.Client(PG_URL);
    await client.connect();
    const direct = await client.query(query);
    await client.end();
    const over = await neon(DATABASE_URL, { fullResults: true }).query(query);
    return { direct: { rows: direct.rows, fields: direct.fields }, over: { rows: over.rows, fields: over.fields } };
  },

  async transaction() {
    const sql = neon(DATABASE_URL);
    await sql`create table if not exists moves (n int primary key)`;
    await sql`truncate moves`;
    const levels = {};
    for (const isolationLevel of ["ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable"]) {
      const [[row]] = await sql.transaction([sql`select current_setting('transaction_isolation') as level`], { isolationLevel });
      levels[isolationLevel] = row.level;
    }
    const settings = await sql.transaction(
      (tx) => [tx`select current_setting('transaction_read_only') as ro`, tx`select current_setting('transaction_deferrable') as d`],
      { isolationLevel: "Serializable", readOnly: true, deferrable: true },
    );
    const wrote = await sql.transaction([sql`insert into moves values (1), (2)`, sql`select count(*) from moves`]);
    const rolledBack = await failure(() => sql.transaction([sql`insert into moves values (3)`, sql`insert into moves values (1)`]));
    const readOnly = await failure(() => sql.transaction([sql`insert into moves values (4)`], { readOnly: true }));
    const arrays = await sql.transaction([sql`select n from moves order by n`], { arrayMode: true, fullResults: true });
    return { levels, settings, wrote, rolledBack, readOnly, arrays, left: await sql`select n from moves order by n` };
  },

  async pool(pipelineConnect) {
    neonConfig.pipelineConnect = pipelineConnect === "false" ? false : "password";
    const pool = new Pool({ connectionString: DATABASE_URL, max: 3 });
    const notices = [];
    const first = await pool.query("select $1::int + 1 as n, current_user as who", [41]);
    const many = await Promise.all(Array.from({ length: 12 }, (_, i) => pool.query("select $1::int as n", [i])));
    const client = await pool.connect();
    client.on("notice", (notice) => notices.push(notice.message));
    await client.query("begin");
    await client.query("create temp table t (n int) on commit drop");
    await client.query({ name: "add", text: "insert into t values ($1)", values: [1] });
    await client.query({ name: "add", text: "insert into t values ($1)", values: [2] });
    const inside = await client.query("select sum(n)::int as sum from t");
    const broken = await failure(() => client.query("select * from nowhere"));
    await client.query("rollback");
    const after = await client.query("select to_regclass('pg_temp.t') as gone");
    await client.query("do $$ begin raise notice 'heard'; end $$");
    const several = await client.query("select 1 as a; select 2 as b");
    const big = await client.query("select repeat('x', 5000000) as x, $1::text as y", ["y".repeat(3000000)]);
    client.release();
    await pool.end();
    return {
      first: first.rows, many: many.map((one) => one.rows[0].n), inside: inside.rows, broken, after: after.rows, notices,
      several: several.map((one) => one.rows), big: [big.rows[0].x.length, big.rows[0].y.length],
    };
  },

  async viaFetch() {
    neonConfig.poolQueryViaFetch = true;
    neonConfig.wsProxy = () => "127.0.0.1:1/v2";
    const pool = new Pool({ connectionString: DATABASE_URL });
    const result = await pool.query("select $1::int as n, now() as t", [7]);
    return { n: result.rows[0].n, isDate: result.rows[0].t instanceof Date, command: result.command };
  },

  async listen() {
    const client = new Client(DATABASE_URL);
    await client.connect();
    const heard = new Promise((resolve) => client.on("notification", (message) => resolve([message.channel, message.payload])));
    await client.query("listen ears");
    await neon(DATABASE_URL)`select pg_notify('ears', 'from http')`;
    const result = await heard;
    await client.end();
    return result;
  },

  async wrong(pipelineConnect) {
    neonConfig.pipelineConnect = pipelineConnect === "false" ? false : "password";
    const url = new URL(DATABASE_URL);
    const outcomes = {};
    const variants = {
      password: Object.assign(new URL(url), { password: "wrong" }),
      database: Object.assign(new URL(url), { pathname: "/missing" }),
      host: Object.assign(new URL(url), { hostname: "ep-nobody-here-1.us-east-2.aws.neon.tech" }),
    };
    for (const [name, variant] of Object.entries(variants)) {
      outcomes[name] = {
        http: await failure(() => neon(variant.href)`select 1`),
        ws: await failure(async () => {
          const client = new Client(variant.href);
          client.on("error", () => {});
          // Pipelined, the driver takes it for granted that it gets in: the first query hears what became of it.
          await client.connect();
          await client.query("select 1");
        }),
      };
    }
    const token = neon(DATABASE_URL, { authToken: "ey.ey.ey" });
    return { ...outcomes, token: await failure(() => token`select 1`) };
  },

  // One statement at a time by all three ways; what each says of its failure.
  async errors() {
    const statements = JSON.parse(process.env.STATEMENTS);
    const client = new pg.Client(PG_URL);
    await client.connect();
    const socket = new Client(DATABASE_URL);
    await socket.connect();
    const sql = neon(DATABASE_URL);
    const outcomes = [];
    for (const [query, values] of statements) {
      outcomes.push({
        query,
        direct: await failure(() => client.query(query, values)),
        http: await failure(() => sql.query(query, values)),
        ws: await failure(() => socket.query(query, values)),
      });
    }
    await client.end();
    await socket.end();
    return outcomes;
  },
};

const [name, ...rest] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await cases[name](...rest)));
