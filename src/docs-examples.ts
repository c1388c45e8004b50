/** What somebody who writes a panel tries first, for a shell. `$BROKER` is such as `http://localhost:8787/v1/local`. */
export const FIRST_CALLS = `BROKER=http://localhost:8787/v1/local TOKEN=plm_...     # plumule token create panel --scope operate
auth="Authorization: Bearer $TOKEN" json="Content-Type: application/json"

# Submit. The script finds the configuration in the file that $PLUMULE_CONFIGURATION names.
curl -H "$auth" -H "$json" -H "Idempotency-Key: $(uuidgen)" $BROKER/deployments/blog/jobs -d '{
  "task": { "kind": "shell", "script": "cat $PLUMULE_CONFIGURATION" },
  "configuration": { "domain": "example.org" }, "mode": "replace" }'

curl -H "$auth" $BROKER/deployments/blog                       # how it stands; ETag for If-Match
curl -N -H "$auth" -H "Accept: text/event-stream" $BROKER/deployments/blog/events      # follow
curl -H "$auth" "$BROKER/deployments/blog/events?wait=20&since=CURSOR"                 # or poll, patiently
curl -H "$auth" -H "$json" $BROKER/deployments/blog/cancel -d '{ "reason": "changed my mind" }'
curl -X DELETE -H "$auth" -H "$json" $BROKER/deployments/blog -d '{
  "task": { "kind": "shell", "script": "echo take it down" } }'

# Which pushes make which jobs. The document is replaced as a whole, so If-Match has the ETag of the one that was read.
curl -i -H "$auth" $BROKER/triggers
curl -X PUT -H "$auth" -H "$json" -H 'If-Match: "v0"' $BROKER/triggers -d @triggers.json
curl -H "$auth" $BROKER/deliveries                             # what came in, and what became of it
`;

/** Follows a deployment over its WebSocket. The ticket keeps the token out of the URL; a mark is sent back so that the stream goes on. */
export const WATCH_SCRIPT = `// node watch.mjs http://localhost:8787/v1/local TOKEN DEPLOYMENT
const [url, token, deployment] = process.argv.slice(2);
const asked = await fetch(url + "/tickets", { method: "POST", headers: { authorization: "Bearer " + token } });
const { ticket } = await asked.json();
const stream = url.replace("http", "ws") + "/deployments/" + deployment + "/stream";
const socket = new WebSocket(stream, ["plumule.v1", "ticket." + ticket]);
socket.onopen = () => socket.send(JSON.stringify({ op: "subscribe", id: "all" }));
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.op === "mark") socket.send(data);
  console.log(frame.op, frame.cursor ?? "", (frame.events ?? []).map(({ type }) => type).join(" "));
};
socket.onclose = ({ code, reason }) => console.log("closed", code, reason);
`;
