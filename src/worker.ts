import { createApp } from "./app.ts";

export { Deployment } from "../durable-objects/deployment/deployment.ts";
export { Namespace } from "../durable-objects/namespace/namespace.ts";
export { Pool } from "../durable-objects/pool/pool.ts";

export default createApp();
