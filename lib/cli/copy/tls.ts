/**
 * TLS of a client that copies: who it is and whom it believes, from files in libnbd's and QEMU's layouts.
 *
 *     ca-cert.pem                        who may have signed the server's certificate
 *     client-cert.pem  client-key.pem    its own (optional: a server may be content without)
 *     a file of IDENTITY:HEXKEY lines    pre-shared keys, in place of certificates
 */
import { mkdtemp, rm, symlink } from "node:fs/promises";
import { isIP, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { LaminaError } from "../../core/errors.js";
import { CERTIFICATE_CIPHERS, PSK_CIPHERS, parseKeys } from "../../gateway/tls-credentials.js";
import { checkTlsFiles, type Refuse, readTlsFile, TLS13_CIPHERS } from "../../uring/tls-files.js";

/** As the command line names them. */
export interface TlsArguments {
  readonly tlsCertificates: string | undefined;
  readonly tlsPskFile: string | undefined;
  readonly tlsUsername: string | undefined;
}

export interface ClientTls {
  /** For `secure`. */
  readonly options: ConnectionOptions;
  /** The files, for programs that read them themselves. */
  readonly source:
    | { readonly kind: "x509"; readonly directory: string }
    | { readonly kind: "psk"; readonly file: string; readonly username: string };
}

/** Null: no TLS was asked for. Throws LaminaError CLIENT_TLS_FILES or ARGUMENT_INVALID. */
export function readClientTls(args: TlsArguments): ClientTls | null {
  const { tlsCertificates, tlsPskFile, tlsUsername } = args;
  if (tlsCertificates !== undefined && tlsPskFile !== undefined) {
    const what = "--tls-certificates and --tls-psk-file exclude each other";
    throw new LaminaError("ARGUMENT_INVALID", { what, hint: "say one of them" });
  }
  if (tlsCertificates !== undefined) return certificates(tlsCertificates);
  return tlsPskFile === undefined ? null : preSharedKey(tlsPskFile, tlsUsername);
}

function certificates(directory: string): ClientTls {
  const refuse = refusalOf(directory);
  const file = (name: string): Buffer | undefined => readTlsFile(directory, name, refuse);
  const [ca, cert, key] = [file("ca-cert.pem"), file("client-cert.pem"), file("client-key.pem")];
  // Without it the authorities of the operating system would be believed, which nobody asked for.
  if (ca === undefined) throw refuse("there is no ca-cert.pem");
  if ((cert === undefined) !== (key === undefined)) {
    throw refuse("client-cert.pem and client-key.pem belong together and one is missing");
  }
  const options: ConnectionOptions = {
    minVersion: "TLSv1.2",
    ciphers: `${TLS13_CIPHERS}:${CERTIFICATE_CIPHERS}`,
    ca,
    ...(cert === undefined ? {} : { cert, key }),
  };
  checkTlsFiles(options, refuse);
  return { options, source: { kind: "x509", directory: resolve(directory) } };
}

function preSharedKey(file: string, wanted: string | undefined): ClientTls {
  const refuse = refusalOf(file);
  const bytes = readTlsFile(dirname(file), basename(file), refuse);
  if (bytes === undefined) throw refuse("it does not exist");
  const keys = parseKeys(basename(file), bytes, refuse);
  const username = wanted ?? (keys.size === 1 ? [...keys.keys()][0]! : undefined);
  if (username === undefined) throw refuse(`it has ${keys.size} keys; --tls-username says which`);
  const psk = keys.get(username);
  if (psk === undefined) throw refuse(`it has no key of ${username}`);
  const options: ConnectionOptions = {
    minVersion: "TLSv1.2",
    ciphers: `${TLS13_CIPHERS}:${PSK_CIPHERS}`,
    pskCallback: () => ({ identity: username, psk }),
    // A server that leaves the key aside and shows a certificate proves nothing to who believes in the key.
    checkServerIdentity: (_host, certificate) =>
      Object.keys(certificate).length === 0
        ? undefined
        : new Error("the server does not use the key that was agreed on"),
  };
  return { options, source: { kind: "psk", file: resolve(file), username } };
}

function refusalOf(path: string): Refuse {
  return (what, cause) => new LaminaError("CLIENT_TLS_FILES", { path, what }, cause);
}

/** Encrypts a connection to `host`, whose name or address its certificate must have. Rejected when it does not. */
export function secure(socket: Socket, host: string, tls: ClientTls): Promise<TLSSocket> {
  const name = isIP(host) === 0 ? { servername: host } : {};
  return new Promise((resolve, reject) => {
    const secured = connect({ ...tls.options, ...name, host, socket });
    const fail = (error: Error): void => {
      secured.destroy();
      reject(error);
    };
    const onClose = (): void => fail(new Error("the server closed the connection during the TLS handshake"));
    secured.once("error", fail).once("close", onClose);
    secured.once("secureConnect", () => {
      secured.off("error", fail).off("close", onClose);
      resolve(secured);
    });
  });
}

/**
 * Calls `use` with the credentials as an object of QEMU's programs. They find a key only in a file keys.psk, so one
 * of another name has a directory made for it meanwhile.
 */
export async function withQemuObject<T>(
  { source }: ClientTls,
  use: (object: string) => Promise<T>,
): Promise<T> {
  if (source.kind === "x509") {
    return use(`tls-creds-x509,id=${QEMU_TLS_ID},endpoint=client,dir=${qemuValue(source.directory)}`);
  }
  const directory = await mkdtemp(join(tmpdir(), "lamina-psk-"));
  try {
    await symlink(source.file, join(directory, "keys.psk"));
    const username = qemuValue(source.username);
    const key = `tls-creds-psk,id=${QEMU_TLS_ID},endpoint=client,dir=${qemuValue(directory)}`;
    return await use(`${key},username=${username}`);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

export const QEMU_TLS_ID = "tls0";

/** A value in a list of QEMU's options: a comma in it is written twice. */
export function qemuValue(text: string): string {
  return text.replaceAll(",", ",,");
}
