/**
 * Metadata contexts of a server: which ones a query names, and which ones a session has selected.
 *
 * Invariants
 *  1. A selection counts only for the export name that it was made for (proto.md, NBD_OPT_SET_META_CONTEXT).
 *  2. Every new selection replaces the one before; `forget` leaves none.
 *  3. Ids of one selection are unique.
 */
import { NBD_META_NAMESPACE_BASE } from "./constants.js";
import type { ContextQuery, ExportDirectory, ExportInfo, SelectedContext } from "./export.js";

/** Metadata contexts that one session can select. More get NBD_REP_ERR_TOO_BIG. */
export const CONTEXTS_MAX = 16;

export class ContextSelection {
  #exportName = "";
  #contexts: readonly SelectedContext[] = [];

  /** Selects `names`, at most CONTEXTS_MAX of them, for `exportName`. */
  select(exportName: string, names: Iterable<string>): readonly SelectedContext[] {
    // Ids from 1: a client that takes 0, the id of listings, for a real one is found out.
    this.#contexts = Array.from(names, (name, index) => ({ id: index + 1, name }));
    this.#exportName = exportName;
    return this.#contexts;
  }

  forget(): void {
    this.#contexts = [];
  }

  /** What is selected, if it was selected for this very export name. */
  of(exportName: string): readonly SelectedContext[] {
    return this.#exportName === exportName ? this.#contexts : [];
  }
}

/**
 * Names of the contexts of `info` that the queries name, each once. Unknown namespaces and leaves, and what
 * has no namespace at all, are ignored.
 */
export function matchContexts(
  directory: ExportDirectory,
  info: ExportInfo,
  queries: readonly string[],
  listing: boolean,
): ReadonlySet<string> {
  const found = new Set<string>();
  for (const text of queries) {
    const colon = text.indexOf(":");
    if (colon < 1) continue;
    const query = { namespace: text.slice(0, colon), leaf: text.slice(colon + 1), listing };
    for (const name of matchQuery(directory, info, text, query)) found.add(name);
  }
  return found;
}

function matchQuery(
  directory: ExportDirectory,
  info: ExportInfo,
  text: string,
  query: ContextQuery,
): readonly string[] {
  const { namespace, leaf, listing } = query;
  if (directory.matchContexts !== undefined && namespace !== NBD_META_NAMESPACE_BASE) {
    return directory.matchContexts(info, query);
  }
  if (leaf !== "") return info.contexts.includes(text) ? [text] : [];
  return listing ? info.contexts.filter((name) => name.startsWith(text)) : [];
}
