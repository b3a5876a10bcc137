/** What servers tell each other of those they probe, and what follows from it. Pure. */

/** A server's word: which of those it probes are silent. */
export interface Rumor {
  /** Whose word it is. */
  readonly id: string;
  /** Grows with each new word of this server. */
  readonly version: number;
  readonly silent: readonly string[];
}

interface Heard extends Rumor {
  /** Monotonic ms. */
  readonly atMs: number;
  /** Messages that are still to carry it. */
  sends: number;
}

/** Each word is carried by this many messages of a server; its neighbours do the same. */
const SENDS = 12;
/** Words in one message; with names of ordinary length it stays below 1,200 octets. */
export const RUMORS_MAX = 6;
/** Witnesses that it takes at least. */
const WITNESSES_MIN = 2;
/** Share of the watchers that can be heard which must agree. */
const WITNESSES_SHARE = 1 / 3;

/** Words of other servers, the newest of each, and the own one. */
export class RumorMill {
  readonly #self: string;
  readonly #heard = new Map<string, Heard>();
  #own: readonly string[] = [];
  #version = 0;

  constructor(self: string) {
    this.#self = self;
  }

  /** Forgets words of servers that are no members any more. */
  keep(members: ReadonlySet<string>): void {
    for (const id of this.#heard.keys()) if (!members.has(id)) this.#heard.delete(id);
  }

  /** Takes the own word; a changed one goes out. `atMs` is wall time: it outlives a restart. */
  say(silent: readonly string[], o: { readonly wallMs: number; readonly nowMs: number }): boolean {
    if (silent.length === this.#own.length && silent.every((id) => this.#own.includes(id))) {
      return false;
    }
    this.#own = [...silent];
    this.#speak(o);
    return true;
  }

  #speak(o: { readonly wallMs: number; readonly nowMs: number }): void {
    this.#version = Math.max(this.#version + 1, o.wallMs);
    this.#heard.set(this.#self, {
      id: this.#self,
      version: this.#version,
      silent: this.#own,
      atMs: o.nowMs,
      sends: SENDS,
    });
  }

  /**
   * Takes words from a message; whether one was news. A word that claims to be ours, from before a
   * restart of a daemon with a later clock, is answered with a newer one.
   */
  take(rumors: readonly Rumor[], o: { readonly wallMs: number; readonly nowMs: number }): boolean {
    let news = false;
    for (const rumor of rumors) {
      if (rumor.id === this.#self) {
        if (rumor.version <= this.#version) continue;
        this.#version = rumor.version;
        this.#speak(o);
        news = true;
        continue;
      }
      const known = this.#heard.get(rumor.id);
      if (known && known.version >= rumor.version) continue;
      this.#heard.set(rumor.id, { ...rumor, atMs: o.nowMs, sends: SENDS });
      news = true;
    }
    return news;
  }

  /** Words for the next message: those that were sent least often first. */
  next(): Rumor[] {
    const due = [...this.#heard.values()].filter((one) => one.sends > 0)
      .sort((a, b) => b.sends - a.sends || b.version - a.version).slice(0, RUMORS_MAX);
    return due.map((one) => {
      one.sends -= 1;
      return { id: one.id, version: one.version, silent: one.silent };
    });
  }

  /**
   * Whether watchers say that a server is silent: at least two, and a third of those that are not
   * silent themselves. What was said before `heardAtMs`, when the server itself was heard, is over.
   */
  isSilent(
    id: string,
    o: {
      readonly watchers: readonly string[];
      readonly silent: ReadonlySet<string>;
      readonly heardAtMs: number;
    },
  ): boolean {
    const able = o.watchers.filter((watcher) => !o.silent.has(watcher));
    const witnesses = able.filter((watcher) => {
      const word = this.#heard.get(watcher);
      return word !== undefined && word.atMs >= o.heardAtMs && word.silent.includes(id);
    });
    return witnesses.length >= Math.max(WITNESSES_MIN, Math.ceil(able.length * WITNESSES_SHARE));
  }
}
