import { VOUCH_PORT } from "./ports.ts";

/**
 * Flags of a route whose health is ours to judge: kamal-proxy asks once, and jiji-daemon answers in
 * the container's network. Source: kamal-proxy 0.9.2, `deploy.go`.
 */
export const VOUCHED_FLAGS: readonly string[] = [
  // A year: one answer is enough, and nobody is there to give another.
  "--health-check-interval=8760h",
  `--health-check-port=${VOUCH_PORT}`,
];

/** Whether jiji-daemon has to vouch for the targets of a route while it is set. */
export function isVouched(route: { readonly flags: readonly string[] }): boolean {
  return VOUCHED_FLAGS.every((flag) => route.flags.includes(flag));
}
