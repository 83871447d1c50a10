/** Keys and certificates for tests, in the layout that QEMU, libnbd and Lamina share. Made with openssl. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { check } from "./process.js";

const NEW_KEY = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/** A process of a cluster dials and is dialled. */
const PURPOSES = { server: "serverAuth", client: "clientAuth", link: "serverAuth,clientAuth" } as const;

export interface Authority {
  readonly directory: string;
  /** A directory with ca-cert.pem and a certificate and key of `name`, for the hosts `names` where it serves. */
  issue(role: keyof typeof PURPOSES, name: string, names?: string): Promise<string>;
}

export async function makeAuthority(parent: string, name: string): Promise<Authority> {
  const directory = join(parent, name);
  mkdirSync(directory, { recursive: true });
  const self = [
    "-x509",
    "-days",
    "2",
    "-keyout",
    "ca-key.pem",
    "-out",
    "ca-cert.pem",
    "-subj",
    `/CN=${name}`,
  ];
  await check("openssl", [...NEW_KEY, ...self], { cwd: directory });
  return {
    directory,
    async issue(role, subject, names = "DNS:localhost,IP:127.0.0.1") {
      const own = join(directory, `${role}-${subject}`);
      mkdirSync(own);
      symlinkSync(join(directory, "ca-cert.pem"), join(own, "ca-cert.pem"));
      const request = ["-keyout", `${role}-key.pem`, "-out", "request.pem", "-subj", `/CN=${subject}`];
      await check("openssl", [...NEW_KEY, ...request], { cwd: own });
      writeFileSync(join(own, "extensions"), `subjectAltName=${names}\nextendedKeyUsage=${PURPOSES[role]}\n`);
      const signed = ["-CA", "../ca-cert.pem", "-CAkey", "../ca-key.pem", "-CAcreateserial", "-days", "2"];
      const files = ["-in", "request.pem", "-out", `${role}-cert.pem`, "-extfile", "extensions"];
      await check("openssl", ["x509", "-req", ...files, ...signed], { cwd: own });
      return own;
    },
  };
}

/** Writes a key of each identity, as psktool does. */
export async function makeKeys(path: string, identities: readonly string[]): Promise<void> {
  const lines: string[] = [];
  for (const identity of identities) {
    const key = (await check("openssl", ["rand", "-hex", "32"])).trim();
    lines.push(`${identity}:${key}\n`);
  }
  writeFileSync(path, lines.join(""), { mode: 0o600 });
}
