-- uuid-ossp without libossp-uuid, which few systems have: the same functions in SQL. SHA-1 comes from pgcrypto's library.
-- Bodies are parsed here and now, so that no search path of a caller changes what they mean.

CREATE FUNCTION uuid_nil() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN '00000000-0000-0000-0000-000000000000'::uuid;

CREATE FUNCTION uuid_ns_dns() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN '6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_url() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN '6ba7b811-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_oid() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN '6ba7b812-9dad-11d1-80b4-00c04fd430c8'::uuid;

CREATE FUNCTION uuid_ns_x500() RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
RETURN '6ba7b814-9dad-11d1-80b4-00c04fd430c8'::uuid;

-- 100 ns steps since 1582-10-15; clock sequence and node are random for each call, the node marked as no real address
CREATE FUNCTION uuid_generate_v1() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
  SELECT (right(low, 8) || '-' || substr(low, 5, 4) || '-1' || substr(low, 2, 3) || '-' || substr(chance, 17, 4) || '-'
          || substr(chance, 21, 1) || substr('1133557799bbddff', strpos('0123456789abcdef', substr(chance, 22, 1)), 1)
          || substr(chance, 23, 10))::uuid
  FROM (SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 10000000)::bigint + 122192928000000000), 16, '0')
                 AS low,
               replace(gen_random_uuid()::text, '-', '') AS chance) AS parts;
END;

CREATE FUNCTION uuid_generate_v1mc() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
  SELECT (right(low, 8) || '-' || substr(low, 5, 4) || '-1' || substr(low, 2, 3) || '-' || substr(chance, 17, 4) || '-'
          || substr(chance, 21, 1) || substr('1133557799bbddff', strpos('0123456789abcdef', substr(chance, 22, 1)), 1)
          || substr(chance, 23, 10))::uuid
  FROM (SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 10000000)::bigint + 122192928000000000), 16, '0')
                 AS low,
               replace(gen_random_uuid()::text, '-', '') AS chance) AS parts;
END;

CREATE FUNCTION uuid_generate_v3(namespace uuid, name text) RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
  SELECT (substr(hash, 1, 12) || '3' || substr(hash, 14, 3)
          || substr('89ab89ab89ab89ab', strpos('0123456789abcdef', substr(hash, 17, 1)), 1) || substr(hash, 18, 15))::uuid
  FROM (SELECT md5(uuid_send(namespace) || convert_to(name, 'UTF8')) AS hash) AS hashed;
END;

CREATE FUNCTION uuid_generate_v4() RETURNS uuid VOLATILE STRICT PARALLEL SAFE LANGUAGE sql
RETURN gen_random_uuid();

CREATE FUNCTION uuid_ossp_digest(data bytea, algorithm text) RETURNS bytea
AS '$libdir/pgcrypto', 'pg_digest' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION uuid_generate_v5(namespace uuid, name text) RETURNS uuid IMMUTABLE STRICT PARALLEL SAFE LANGUAGE sql
BEGIN ATOMIC
  SELECT (substr(hash, 1, 12) || '5' || substr(hash, 14, 3)
          || substr('89ab89ab89ab89ab', strpos('0123456789abcdef', substr(hash, 17, 1)), 1) || substr(hash, 18, 15))::uuid
  FROM (SELECT encode(uuid_ossp_digest(uuid_send(namespace) || convert_to(name, 'UTF8'), 'sha1'), 'hex') AS hash)
         AS hashed;
END;
