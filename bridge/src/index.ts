export { type HookConfig, hookConfigSchema, readHookConfig } from "./config.ts";
export { deliver, type DeliverDeps, type DeliveryEnd } from "./deliver.ts";
export { loadSigner } from "./key.ts";
export { audienceOf, isDeletion, parseRefUpdate, type PushOrigin, pushOf, type RefUpdate } from "./push.ts";
export { type DeliveryQueue, openQueue, QUEUE_LIMIT_COUNT, type QueuedDelivery, type Target } from "./queue.ts";
export { receivePush, type ReceiveDeps } from "./receive.ts";
