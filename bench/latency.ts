import { setTimeout as pause } from "node:timers/promises";
import { type Broker, JOB } from "./broker.ts";
import type { Http } from "./http.ts";
import { isEventOf, type Listening } from "./socket.ts";

/** What is timed. The first two are floors. */
export const MEASURES = {
  floorPoll: "floor: request → parked poll answered",
  floorFrame: "floor: request → frame at an open socket",
  fastPath: "submit → assignment at a parked runner",
  backlog: "poll → assignment of a waiting job",
  queuedEvent: "submit → its event at an open socket",
  runningEvent: "first heartbeat → its event at an open socket",
  cancel: "cancel → command at the runner",
} as const;
export type Measure = keyof typeof MEASURES;

/** Something that is done again and again; each time gives one duration (ms) per measure. */
export type Scenario = (index: number) => Promise<Partial<Record<Measure, number>>>;

/** Jobs go round over so many deployments, so that no lane has to be idle for the next one. */
const DEPLOYMENTS = 8;

/** A rest in which polls come to be parked and what the last sample left behind is mostly done, ms: random, so that no rhythm helps. */
const rest = (): Promise<void> => pause(5 + Math.random() * 10);

const deploymentOf = (index: number): string => `lane-${index % DEPLOYMENTS}`;

/** The scenarios on a floor and a broker that are open. */
export async function openScenarios(floor: Http, floorSocket: Listening, broker: Broker): Promise<Scenario[]> {
  const sockets: Listening[] = [];
  for (let lane = 0; lane < DEPLOYMENTS; lane += 1) sockets.push(await watchLane(broker, deploymentOf(lane)));
  const socketOf = (index: number): Listening => {
    const socket = sockets[index % DEPLOYMENTS];
    if (socket === undefined) throw new Error("a lane without a socket");
    return socket;
  };
  return [
    () => floorPoll(floor),
    () => floorFrame(floor, floorSocket),
    (index) => fastPath(broker, `fast-${deploymentOf(index)}`),
    (index) => backlog(broker, `backlog-${deploymentOf(index)}`),
    (index) => events(broker, deploymentOf(index), socketOf(index)),
    (index) => cancel(broker, `cancel-${deploymentOf(index)}`),
  ];
}

/** A deployment can be watched once it has had a job. */
async function watchLane(broker: Broker, deployment: string): Promise<Listening> {
  await broker.submit(deployment);
  await broker.finish(await acknowledged(broker));
  return broker.watch(deployment);
}

async function acknowledged(broker: Broker): ReturnType<Broker["poll"]> {
  const assignment = await broker.poll();
  await broker.heartbeat(assignment);
  return assignment;
}

async function floorPoll(floor: Http): Promise<{ floorPoll: number }> {
  const poll = floor.send("GET", "/poll");
  await rest();
  const from = performance.now();
  const submitted = floor.send("POST", "/submit", { body: JOB });
  await poll;
  const floorPollMs = performance.now() - from;
  await submitted;
  return { floorPoll: floorPollMs };
}

async function floorFrame(floor: Http, socket: Listening): Promise<{ floorFrame: number }> {
  await rest();
  const from = performance.now();
  const submitted = floor.send("POST", "/tell", { body: JOB });
  const { at } = await socket.next(() => true);
  await submitted;
  return { floorFrame: at - from };
}

async function fastPath(broker: Broker, deployment: string): Promise<{ fastPath: number }> {
  const poll = broker.poll();
  await rest();
  const from = performance.now();
  const submitted = broker.submit(deployment);
  const assignment = await poll;
  const fastPathMs = performance.now() - from;
  const { job } = await submitted;
  if (job.state !== "assigned") throw new Error(`with a parked runner the job was born ${job.state}`);
  await broker.heartbeat(assignment);
  await broker.finish(assignment);
  return { fastPath: fastPathMs };
}

async function backlog(broker: Broker, deployment: string): Promise<{ backlog: number }> {
  const { job } = await broker.submit(deployment);
  if (job.state !== "queued") throw new Error(`without a runner the job was born ${job.state}`);
  while ((await broker.ticketCount()) === 0) await rest();
  await rest();
  const from = performance.now();
  const assignment = await broker.poll();
  const backlogMs = performance.now() - from;
  await broker.heartbeat(assignment);
  await broker.finish(assignment);
  return { backlog: backlogMs };
}

async function events(
  broker: Broker,
  deployment: string,
  socket: Listening,
): Promise<{ queuedEvent: number; runningEvent: number }> {
  const poll = broker.poll();
  await rest();
  const submittedAt = performance.now();
  const { job } = await broker.submit(deployment);
  const subject = `jobs/${job.id}`;
  const queued = await socket.next((frame) => isEventOf(frame, subject, "job.queued"));
  const assignment = await poll;
  await rest();
  const beatAt = performance.now();
  const beat = broker.heartbeat(assignment);
  const running = await socket.next((frame) => isEventOf(frame, subject, "job.running"));
  await beat;
  await broker.finish(assignment);
  return { queuedEvent: queued.at - submittedAt, runningEvent: running.at - beatAt };
}

async function cancel(broker: Broker, deployment: string): Promise<{ cancel: number }> {
  const { job } = await broker.submit(deployment);
  const assignment = await acknowledged(broker);
  const beat = broker.heartbeat(assignment, 15_000);
  await rest();
  const from = performance.now();
  const cancelled = broker.cancel(job.id);
  const { command } = await beat;
  const cancelMs = performance.now() - from;
  await cancelled;
  if (command?.kind !== "cancel") throw new Error("the heartbeat came back without the command");
  await broker.finish(assignment, "cancelled");
  return { cancel: cancelMs };
}
