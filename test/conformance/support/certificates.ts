/** Certificates in the layout of QEMU and libnbd, good for a day. */
import { check } from "../../interop/support/process.js";

const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** An authority, the server's certificate and the client's (common name "alice"), made in `directory`. */
export async function makeCertificates(directory: string): Promise<void> {
  const openssl = async (...args: readonly string[]): Promise<unknown> =>
    check("openssl", args, { cwd: directory });
  const root = [
    "-x509",
    "-days",
    "1",
    "-keyout",
    "ca-key.pem",
    "-out",
    "ca-cert.pem",
    "-subj",
    "/CN=authority",
  ];
  await openssl("req", ...KEY, ...root);
  for (const [who, name] of [
    ["server", "localhost"],
    ["client", "alice"],
  ] as const) {
    const request = ["-keyout", `${who}-key.pem`, "-out", `${who}.csr`, "-subj", `/CN=${name}`];
    await openssl("req", ...KEY, ...request);
    const signed = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "1"];
    await openssl("x509", "-req", "-in", `${who}.csr`, "-out", `${who}-cert.pem`, ...signed);
  }
}
