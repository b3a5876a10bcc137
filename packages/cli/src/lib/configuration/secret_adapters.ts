import * as v from "valibot";
import type { SecretAdapter } from "../secrets/secret_adapter.ts";
import { dopplerAdapter } from "../secrets/doppler.ts";
import { BaseConfiguration, type ConfigContext } from "./base.ts";
import { keys, matching, oneOf } from "./format/schema_parts.ts";

/** Every adapter by its name in the configuration. */
const ADAPTERS: Readonly<Record<"doppler", SecretAdapter>> = { doppler: dopplerAdapter };

/** Never the beginning of another option of the adapter's command. */
const argument = () => matching(/^[\w][\w.-]*$/, "a name", "letters, digits, - and _");

/** Schema of `secrets`. */
export const SecretsSchema = keys({
  adapter: oneOf(["doppler"]),
  project: v.optional(argument()),
  config: v.optional(argument()),
});

type SecretsValues = v.InferOutput<typeof SecretsSchema>;

/** A service that keeps the project's secrets. */
export class SecretsConfiguration extends BaseConfiguration<SecretsValues> {
  /** @param context with the document that holds `secrets`. */
  constructor(context: ConfigContext) {
    super(context, ["secrets"], SecretsSchema);
  }

  /** What reads the secrets. */
  get adapter(): SecretAdapter {
    return ADAPTERS[this.values.adapter];
  }

  /** The adapter's word for the project; its own default when undefined. */
  get project(): string | undefined {
    return this.values.project;
  }

  /** The adapter's word for the environment; its own default when undefined. */
  get config(): string | undefined {
    return this.values.config;
  }
}
