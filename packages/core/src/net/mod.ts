/** Addresses: the one place where jiji computes with IPv4, IPv6 and CIDR blocks. */
export * from "./endpoint.ts";
export * from "./ip.ts";
export * from "./management_ip.ts";
export * from "./scope.ts";
