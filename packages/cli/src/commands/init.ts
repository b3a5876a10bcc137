/** Where and what to write. */
export interface InitOptions {
  readonly cwd: string;
  readonly environment?: string;
  /** Overwrite an existing file. */
  readonly force?: boolean;
}

/** Where init speaks. */
export interface InitOutput {
  write(line: string): void;
  /** Asks before overwriting; absent off a terminal. */
  confirm?(question: string): Promise<boolean>;
}

/** Writes a starter configuration. Gives the path written. */
export declare function init(options: InitOptions, output: InitOutput): Promise<string>;
