import { type Fault, onFaulty, tellFaults } from "./faults.ts";
import { STORY_ENGINE } from "./shop.ts";

const SERVERS = ["s1", "s2", "s3"] as const;

/** Where the engine puts what it downloads. */
const DOWNLOADS = STORY_ENGINE === "docker" ? "/var/lib/docker/tmp" : "/var/tmp";

const FAULTS: readonly Fault[] = [
  {
    name: "the disk is full when the image is pulled",
    unharmed: SERVERS,
    codes: [8],
    says: /no space left on device/,
    // The engine gets a folder for downloads that takes no file.
    strike: onFaulty("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", DOWNLOADS),
    mend: onFaulty("umount", DOWNLOADS),
  },
  {
    name: "Corrosion is down",
    unharmed: SERVERS,
    codes: [0],
    says: /serving/,
    strike: onFaulty("systemctl", "stop", "jiji-corrosion"),
    mend: onFaulty("systemctl", "start", "jiji-corrosion"),
  },
  {
    name: "jiji-daemon is down",
    unharmed: SERVERS,
    codes: [0],
    says: /serving/,
    strike: onFaulty("systemctl", "stop", "jiji-daemon"),
    mend: onFaulty("systemctl", "start", "jiji-daemon"),
  },
];

Deno.test("faults: whatever happens to a server, the others serve and the next deploy mends", async (t) => {
  await tellFaults(t, "e2e-faults", FAULTS);
});
