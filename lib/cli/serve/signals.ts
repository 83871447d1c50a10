/** Signals that end a server. */

/** Exit code of a server that an interrupt ended at once: 128 + SIGINT, as shells have it. */
const EXIT_FORCED = 130;

/** The first signal asks to stop, a second one does not wait. Between the two there is always a handler. */
export function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    let asked = false;
    const heard = (signal: string): void => {
      if (asked) force();
      asked = true;
      resolve(signal);
    };
    process.on("SIGINT", heard).on("SIGTERM", heard);
  });
}

/** Nothing acknowledged is lost: it is what a kill -9 would do. */
function force(): void {
  process.exit(EXIT_FORCED);
}
