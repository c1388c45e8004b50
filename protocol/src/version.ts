/**
 * The version of the wire. A broker of version N serves clients and runners of N and N−1 (P18).
 *
 * History, one line per version:
 * 1: first public form.
 * 2: quorums, secrets, locks, skipped repeats and stricter isolation of a job.
 */
export const PROTOCOL_VERSION = 2;

/** The oldest version that this code still speaks. Raising it cuts off runners in the field, so it follows N−1. */
export const PROTOCOL_VERSION_FLOOR = 1;

/** What a client of this version accepts: the parameter says what it can read. (A header of its own would need leave of a broker that does not know it, by CORS.) */
export const ACCEPTED_MEDIUM = `application/json; plumule=${PROTOCOL_VERSION}`;

/** WebSocket subprotocol of the watchers' stream. */
export const STREAM_SUBPROTOCOL = "plumule.v1";
