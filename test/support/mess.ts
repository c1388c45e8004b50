import * as fc from "fast-check";

/** Values that readers trip over: edges of numbers, names that objects have, texts that another format would take for its own. */
const ODD: fc.Arbitrary<unknown> = fc.oneof(
  {
    arbitrary: fc.constantFrom<unknown>(
      null,
      true,
      false,
      0,
      -0,
      -1,
      1.5,
      1e308,
      2 ** 53,
      4_294_967_296,
      -2_147_483_649,
    ),
    weight: 3,
  },
  {
    arbitrary: fc.constantFrom<unknown>(
      "",
      " ",
      "\u0000",
      "\ud800",
      "\u202e",
      "e\u0301",
      "__proto__",
      "constructor",
      "../../x",
      "--help",
      "$(id)",
      "{{x}}",
      "[object Object]",
      "1e9",
      "NaN",
      "2026-02-31T25:00:00Z",
      "rad:z3gqcJUoA1n9HaHKufZs5FCSGazv5",
      "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj",
      "AAAA=",
      "refs/heads/--upload-pack=x",
      "x".repeat(5_000),
      "\n".repeat(300),
    ),
    weight: 3,
  },
  { arbitrary: fc.string({ unit: "binary", maxLength: 40 }), weight: 2 },
  {
    arbitrary: fc.constantFrom<unknown>(
      [],
      {},
      [[]],
      [null],
      { "": {} },
      Array.from({ length: 1_200 }, () => 0),
    ),
    weight: 1,
  },
  { arbitrary: fc.jsonValue({ maxDepth: 3 }), weight: 1 },
);

type Edit = { at: number; how: "replace" | "remove" | "add" | "repeat" | "wrap"; value: unknown; key: string };

const EDIT: fc.Arbitrary<Edit> = fc.record({
  at: fc.nat(),
  how: fc.constantFrom("replace", "replace", "remove", "add", "repeat", "wrap"),
  value: ODD,
  key: fc.oneof(fc.constantFrom("__proto__", "constructor", "toString", "", "extra"), fc.string({ maxLength: 8 })),
});

/** A document that is almost right: one of `good` after a few edits somewhere inside of it. Now and then anything at all. */
export function almost(good: readonly unknown[]): fc.Arbitrary<unknown> {
  const edited = fc
    .tuple(fc.constantFrom(...good), fc.array(EDIT, { maxLength: 4 }))
    .map(([document, edits]) => edits.reduce(edit, structuredClone(document)));
  return fc.oneof({ arbitrary: edited, weight: 9 }, { arbitrary: ODD, weight: 1 });
}

/** The bytes of a document, now and then with some that are wrong: cut, doubled, or other bytes put in. */
export function bytesOf(document: fc.Arbitrary<unknown>): fc.Arbitrary<Uint8Array<ArrayBuffer>> {
  const whole = document.map((value) => Uint8Array.from(new TextEncoder().encode(JSON.stringify(value) ?? "")));
  const spoiled = fc
    .tuple(whole, fc.nat(), fc.uint8Array({ maxLength: 6 }), fc.nat(8))
    .map(([bytes, at, put, removed]) => {
      const from = bytes.length === 0 ? 0 : at % bytes.length;
      return Uint8Array.from([...bytes.subarray(0, from), ...put, ...bytes.subarray(from + removed)]);
    });
  return fc.oneof({ arbitrary: whole, weight: 3 }, { arbitrary: spoiled, weight: 1 });
}

/** A text that is almost one of `good`: cut, doubled, or with odd characters put in. */
export function almostText(good: readonly string[]): fc.Arbitrary<string> {
  const odd = fc.oneof(
    fc.constantFrom(
      "\0",
      "\n",
      "\r\n",
      "\u001b[31m",
      " ",
      ",",
      ".",
      ":",
      "=",
      "-",
      "%2f",
      "'",
      '"',
      "\ud800",
      "@nix {",
      "z",
      "9".repeat(30),
    ),
    fc.string({ unit: "binary", maxLength: 8 }),
  );
  return fc.oneof(
    fc
      .tuple(
        fc.constantFrom(...good),
        fc.nat(),
        fc.array(odd, { maxLength: 3 }),
        fc.nat(6),
        fc.integer({ min: 1, max: 3 }),
      )
      .map(([text, at, put, removed, times]) => {
        const from = at % (text.length + 1);
        return (text.slice(0, from) + put.join("") + text.slice(from + removed)).repeat(times);
      }),
    fc.string({ unit: "binary", maxLength: 200 }),
  );
}

type Place = { holder: unknown[] | Record<string, unknown>; key: string };

function edit(document: unknown, { at, how, value: odd, key }: Edit): unknown {
  // Copied, because a later edit may put something into it.
  const value = structuredClone(odd);
  const root: Record<string, unknown> = { root: document };
  const places = placesIn(root);
  const place = places[at % places.length];
  if (place === undefined) return document;
  const holder = place.holder as Record<string, unknown>;
  const old = holder[place.key];
  if (how === "remove") {
    if (Array.isArray(place.holder)) place.holder.splice(Number(place.key), 1);
    else if (place.holder !== root) delete holder[place.key];
  } else if (how === "add" && typeof old === "object" && old !== null && !Array.isArray(old))
    Object.defineProperty(old, key, { value, enumerable: true, configurable: true, writable: true });
  else if (how === "repeat" && Array.isArray(old)) old.push(...structuredClone(old));
  else holder[place.key] = how === "wrap" ? [old] : value;
  return root["root"];
}

function placesIn(holder: Place["holder"]): Place[] {
  return Object.entries(holder).flatMap(([key, value]) => [
    { holder, key },
    ...(typeof value === "object" && value !== null ? placesIn(value as Place["holder"]) : []),
  ]);
}
