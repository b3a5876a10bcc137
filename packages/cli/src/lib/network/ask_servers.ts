import { type Argv, messageOf } from "@jiji/core";
import { OBSERVE_TIMEOUT_MS } from "../../constants.ts";
import type { RemoteHost } from "../../types/remote_host.ts";
import { mustRun } from "../../utils/remote.ts";

/** Something that servers are asked side by side. */
export interface Question<T> {
  readonly argv: Argv;
  /** For the error: `asking jiji-daemon failed`. */
  readonly what: string;
  readonly parse: (text: string) => T;
  readonly stdin?: string;
  readonly signal: AbortSignal;
}

/** What they said, and why some said nothing. */
export interface Answers<T> {
  /** By server name, sorted. */
  readonly answers: ReadonlyMap<string, T>;
  /** One sentence for each server without an answer. */
  readonly problems: ReadonlyMap<string, string>;
}

/** Asks servers side by side; one that fails keeps no other from answering. */
export async function askServers<T>(
  hosts: Iterable<RemoteHost>,
  question: Question<T>,
): Promise<Answers<T>> {
  const { argv, what, parse, stdin, signal } = question;
  const answers = new Map<string, T>();
  const problems = new Map<string, string>();
  const options = { what, timeoutMs: OBSERVE_TIMEOUT_MS, signal };
  await Promise.all([...hosts].map(async (host) => {
    try {
      const text = await mustRun(host, argv, { ...options, ...(stdin ? { stdin } : {}) });
      answers.set(host.name, parse(text));
    } catch (error) {
      signal.throwIfAborted();
      problems.set(host.name, messageOf(error));
    }
  }));
  return { answers: sorted(answers), problems: sorted(problems) };
}

function sorted<T>(map: ReadonlyMap<string, T>): Map<string, T> {
  return new Map([...map].sort(([a], [b]) => a < b ? -1 : 1));
}
