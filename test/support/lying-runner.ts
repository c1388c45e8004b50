import { parseBase64, type ResultBody, signEnvelope, STATEMENT_PAYLOAD_TYPE, utf8 } from "@plumule/protocol";
import { loadKey } from "@plumule/runner";

/**
 * What stands between a runner and its broker and makes it a liar: every result that it sends claims another NAR hash for each output, and is signed anew
 * with the runner's own key, so that only a second opinion can tell.
 */
export function lyingFetch(keyFile: string): typeof fetch {
  return async (input, init) => {
    const isResult =
      init?.method === "POST" && (input instanceof Request ? input.url : input.toString()).endsWith("/result");
    if (!isResult || typeof init.body !== "string") return fetch(input, init);
    return fetch(input, { ...init, body: JSON.stringify(await lie(JSON.parse(init.body) as ResultBody, keyFile)) });
  };
}

async function lie(body: ResultBody, keyFile: string): Promise<ResultBody> {
  const key = await loadKey(keyFile);
  if (!key.ok) throw new Error("a liar needs a key");
  const forged = (narHash: string): string => narHash.replaceAll(/./g, "f");
  const outputs = body.outputs.map((output) => ({ ...output, narHash: forged(output.narHash) }));
  const statements = await Promise.all(
    body.statements.map((envelope) => {
      let text = new TextDecoder().decode(parseBase64(envelope.payload) ?? new Uint8Array());
      for (const { narHash } of body.outputs) text = text.replaceAll(narHash, forged(narHash));
      return signEnvelope(STATEMENT_PAYLOAD_TYPE, utf8(text), key.signer);
    }),
  );
  return { ...body, outputs, statements };
}
