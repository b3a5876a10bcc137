/** The rules that cli, daemon and dns must agree on: names, labels, paths, ports, rows. */
export * from "./container_labels.ts";
export * from "./daemon_report.ts";
export * from "./dns_names.ts";
export * from "./held_blocks.ts";
export * from "./liveness.ts";
export * from "./mesh_secret.ts";
export * from "./names.ts";
export * from "./newest.ts";
export * from "./paths.ts";
export * from "./peer_seed.ts";
export * from "./ports.ts";
export * from "./removal_report.ts";
export * from "./server_config.ts";
export * from "./server_status.ts";
export * from "./state_stats.ts";
export * from "./version_skew.ts";
export * from "./vouched_routes.ts";
