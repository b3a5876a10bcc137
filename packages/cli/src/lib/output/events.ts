/** Something that happened to a lane: a server, or a service on a server. */
export type ProgressEvent =
  | { readonly kind: "started"; readonly lane: string; readonly title: string }
  | {
    readonly kind: "finished";
    readonly lane: string;
    readonly title: string;
    readonly detail?: string;
    readonly durationMs: number;
  }
  | {
    readonly kind: "failed";
    readonly lane: string;
    readonly title: string;
    readonly message: string;
  }
  /** The lane is done; `summary` is its last word. */
  | {
    readonly kind: "done";
    readonly lane: string;
    readonly summary: string;
    readonly durationMs: number;
  }
  /** A line worth reading that belongs to no step. */
  | { readonly kind: "notice"; readonly lane: string; readonly message: string };

/** Takes events; renderers never answer back. */
export type Emit = (event: ProgressEvent) => void;
