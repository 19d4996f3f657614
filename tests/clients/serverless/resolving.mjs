// A name server for the tests' domain, which no real one knows: all of it is on this host.
import dns from "node:dns";

const { DOMAIN } = process.env;
const asked = dns.lookup;

dns.lookup = (host, options, callback) => {
  if (!DOMAIN || !host.endsWith(`.${DOMAIN}`)) return asked(host, options, callback);
  const found = { address: "127.0.0.1", family: 4 };
  return options.all ? callback(null, [found]) : callback(null, found.address, found.family);
};
