import { JijiError, SERVER_PATHS } from "@jiji/core";

const STATE = SERVER_PATHS.corrosionState;

/** Where each server keeps copies of its own state. */
export const BACKUP_FOLDER: string = `${STATE}/backups`;

/** A larger file is no state of ours, octets. */
export const BACKUP_BYTES_MAX: number = 1024 * 1024 * 1024;

/** First octets of every database. Source: SQLite, "Database File Format", section 1.3. */
const MAGIC = "SQLite format 3\0";

/** Runs Corrosion's own program as its user, with the folder it unpacks its library in. */
export const AS_CORROSION: string =
  `runuser -u jiji -- env TMPDIR=${STATE}/tmp ${SERVER_PATHS.bin}/corrosion ` +
  `-c ${SERVER_PATHS.corrosionConfig}`;

/**
 * Prints a consistent copy of the state as base64. Corrosion strips what makes a copy this server's
 * own, so that it can be restored anywhere.
 */
export const BACKUP_SCRIPT: string = `set -eu
umask 077
cd /
copy=${STATE}/tmp/backup-$$.db
trap 'rm -f "$copy"' EXIT
trap 'exit 1' HUP INT TERM
${AS_CORROSION} backup "$copy" >&2
base64 -w 76 <"$copy"
`;

/** Octets of base64 text that comes in pieces. */
export class BackupDecoder {
  readonly #parts: Uint8Array[] = [];
  #rest = "";
  #bytes = 0;

  /** Takes a piece; a piece may end anywhere. @throws {JijiError} when it is too long or no base64. */
  take(text: string): void {
    const all = this.#rest + text.replace(/\s/g, "");
    const whole = all.length - all.length % 4;
    this.#rest = all.slice(whole);
    const part = decode(all.slice(0, whole));
    this.#bytes += part.length;
    if (this.#bytes > BACKUP_BYTES_MAX) throw new JijiError("the state is larger than 1 GiB");
    this.#parts.push(part);
  }

  /** All octets. @throws {JijiError} when the text was cut off. */
  end(): Uint8Array {
    if (this.#rest !== "") throw new JijiError("the state was cut off on its way");
    const bytes = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }
}

function decode(base64: string): Uint8Array {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw new JijiError("what came is no base64");
  }
}

/** In the schema of every replicated database with our tables. Source: cr-sqlite, clock tables. */
const TABLE = "servers__crsql_clock";

/** @throws {JijiError} when these octets are no database of whole pages with our tables. */
export function refuseNoBackup(bytes: Uint8Array, name: string): void {
  const head = new TextDecoder().decode(bytes.subarray(0, MAGIC.length));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  // A page of 65536 octets is written as 1.
  const page = bytes.length < 100 ? 0 : view.getUint16(16) === 1 ? 65_536 : view.getUint16(16);
  const isDatabase = head === MAGIC && page >= 512 && bytes.length % page === 0;
  if (isDatabase && includesText(bytes, TABLE)) return;
  throw new JijiError(`${name} is no backup of a cluster's state, or not whole`, {
    serving: "nothing was changed",
    hint: "make one with: jiji network backup",
  });
}

function includesText(bytes: Uint8Array, text: string): boolean {
  const wanted = new TextEncoder().encode(text);
  for (let at = bytes.indexOf(wanted[0]!); at >= 0; at = bytes.indexOf(wanted[0]!, at + 1)) {
    if (wanted.every((byte, index) => bytes[at + index] === byte)) return true;
  }
  return false;
}
