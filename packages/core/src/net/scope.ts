import ipaddr from "ipaddr.js";
import { normalizeIp } from "./ip.ts";

/** Interfaces whose addresses other servers cannot use: bridges, containers, other tunnels. */
const INTERNAL_INTERFACE = /^(jiji|docker|podman|br-|cni|veth|virbr|wg|tun|tailscale|lo)/;

/** Whether addresses of this interface lead other servers nowhere. */
export function isInternalInterface(name: string): boolean {
  return INTERNAL_INTERFACE.test(name);
}

/** Networks for documentation, which labs use in place of public ones. Source: RFC 5737, RFC 3849. */
const DOCUMENTATION = /^(192\.0\.2\.|198\.51\.100\.|203\.0\.113\.|2001:db8:)/;

/** Whether an address can be reached from the whole internet; private and special ones cannot. */
export function isPublicIp(text: string): boolean {
  const ip = normalizeIp(text);
  if (ip === undefined) return false;
  return DOCUMENTATION.test(ip) || ipaddr.parse(ip).range() === "unicast";
}
