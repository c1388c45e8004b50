/**
 * Every bound of the wire, with unit and reason (P14). A limit that is reached is answered with a problem document
 * that names it; nothing is cut silently.
 */
export const LIMITS = {
  /** Bytes of a control request (cancel, approve, tokens, …): a few short fields. */
  controlBytes: 32 * 1024,
  /** Bytes of a submit: a shell script and a configuration document of a web panel fit; a file tree does not. */
  submitBytes: 256 * 1024,
  /** Bytes of a webhook; the Standard Webhooks specification advises under 20 KB. */
  webhookBytes: 64 * 1024,
  /** Bytes of a batch of runner events; a plan of 2,000 derivations fits. */
  runnerEventsBytes: 1024 * 1024,
  /** Bytes of a result: envelopes (256 KiB) plus an inline log tail. */
  resultBytes: 512 * 1024,
  /** Bytes of a run that was done without the broker: a submit and a result. */
  standaloneBytes: 768 * 1024,
  /** Bytes of log in one frame to a watcher, and the most that a version-1 runner appends at once. */
  logChunkBytes: 256 * 1024,
  /** Bytes of one log append as it is sent and stored: below the 2 MB row of an object. */
  logAppendBytes: 1024 * 1024,
  /** Bytes of log that one append brings when it came packed: unpacked in a few milliseconds, and held in memory for that. */
  logUnpackedBytes: 4 * 1024 * 1024,
  /** Bytes of one run's log; the runner keeps head and tail beyond it. */
  logBytes: 64 * 1024 * 1024,
  /** Least memory that a job may be limited to, bytes: a shell with a few programs. */
  jobMemoryBytes: 16 * 1024 * 1024,
  /** Least tasks (processes and threads): the runner's own init and a script with a pipe. */
  jobTasks: 8,
  /** Least bytes of a log: its two marker lines, and something around them. */
  jobLogBytes: 64 * 1024,
  /** Bytes of the log tail that may ride on a result, so that a short job needs no upload of its own. */
  logTailBytes: 128 * 1024,
  /** Bytes answered by one log read. */
  logReadBytes: 1024 * 1024,
  /** Nesting of a JSON body; deeper input is an attack on recursive code. */
  jsonDepth: 32,
  /** Items in any array of a request, unless its schema says less. */
  arrayItems: 1_000,
  /** Characters of a free text field (summary, reason). */
  textCharacters: 2_000,
  /** Lines that a reason carries of the log of what failed, as many as Nix itself shows, and characters of each. */
  reasonLines: 25,
  reasonLineCharacters: 300,
  /** Bytes of a plan as JSON text: it has to fit into the statement that signs it. */
  planBytes: 64 * 1024,
  /** Bytes of one state file of an effect, and how many of them a deployment has: the state of a tool that manages some hundred machines. */
  effectStateBytes: 32 * 1024 * 1024,
  effectStates: 16,
  /** Characters of a script. */
  scriptCharacters: 64 * 1024,
  /** Characters of a name, label key or label value. */
  nameCharacters: 128,
  /** Labels of a job or runner: they are matched for every poll. */
  labelsCount: 32,
  /** Systems of a job or runner, likewise. */
  systemsCount: 8,
  /** Environment variables of a job. */
  environmentCount: 64,
  /** Characters of an environment value. */
  environmentCharacters: 8 * 1024,
  /** Characters of an idempotency key or request key. */
  keyCharacters: 128,
  /** How long an answer to an idempotency key is kept, ms. */
  idempotencyMs: 24 * 3600_000,
  /** Hold of a long poll, ms: within the 30 s that some proxies and platforms allow a request. */
  pollHoldMs: 25_000,
  /** Hold of a heartbeat, ms: a third of the lease, so that two may be lost. */
  heartbeatHoldMs: 15_000,
  /** Hold of a history request, ms. */
  historyHoldMs: 25_000,
  /** History requests held by one object; each holds a request open. */
  parkedHistories: 1_000,
  /** A lease without a heartbeat ends after this, ms. */
  leaseMs: 45_000,
  /** An assigned run that was not acknowledged by a heartbeat goes back to the queue after this, ms. */
  acknowledgeMs: 30_000,
  /** A reserved poll that was not filled is free again after this, ms. */
  reservationMs: 3_000,
  /** Default and greatest wait in the queue, ms. */
  queueMs: 24 * 3600_000,
  queueMaxMs: 30 * 24 * 3600_000,
  /** Default and greatest duration of a run, ms. */
  runMs: 2 * 3600_000,
  runMaxMs: 48 * 3600_000,
  /** Default and greatest silence of a run's log, ms. */
  silenceMs: 20 * 60_000,
  silenceMaxMs: 24 * 3600_000,
  /** The longest that the workspace of a failed run is kept, ms: it holds a disk. */
  keepFailedMaxMs: 30 * 24 * 3600_000,
  /** Default and greatest grace between the first signal and the kill, ms. */
  graceMs: 10_000,
  graceMaxMs: 10 * 60_000,
  /** Longest time that a drain may leave to the runs of a runner: as long as any run may take. */
  drainMaxMs: 48 * 3600_000,
  /** Runs that an infrastructure failure may cost before the job fails. */
  attempts: 3,
  attemptsMax: 10,
  /** Replicas of a quorum: each is a whole run, and more than a handful of independent operators is rare. */
  quorumReplicas: 7,
  /** Replicas added because votes differed. Two settle every split that one liar can make; more would let liars spend other people's machines. */
  quorumTieBreaks: 2,
  /** Verdicts of one deployment that the broker has still to sign: a namespace that cannot be reached for hours. */
  unsignedVerdicts: 200,
  /** Earlier jobs of a deployment in which statements are looked for that contradict those of a job that has just ended. */
  equivocationJobs: 50,
  /** Outputs that a verdict lists as different; further ones are counted. */
  verdictOutputs: 32,
  /** Longest debounce, ms. */
  debounceMaxMs: 3600_000,
  /** Jobs of one deployment that are not final: a lane that is longer is a lane that nobody drains. */
  pendingJobs: 1_000,
  /** Those of strangers among them: what nobody has looked at must not fill the lane of others. */
  strangersJobs: 100,
  /** Tickets in one pool. */
  poolTickets: 100_000,
  /** Polls parked in one pool; each holds a request open. */
  parkedPolls: 10_000,
  /** Jobs kept per deployment after they are final; older ones lose log and derivations first, then the row. */
  jobsKept: 1_000,
  /** Logs kept per deployment, by run. */
  logsKept: 100,
  /** Bytes of logs kept per deployment, far below the 10 GB of an object. */
  logsKeptBytes: 1024 * 1024 * 1024,
  /** Events kept per stream; an older cursor gets a reset. */
  eventsKept: 50_000,
  /** Derivations kept per run. */
  derivations: 20_000,
  /** Edges of a derivation graph kept per run. */
  derivationEdges: 60_000,
  /** Characters of derivation changes kept per run, as JSON: what is folded in memory for one answer. */
  derivationCharacters: 16 * 1024 * 1024,
  /** Outputs named by one result. */
  outputs: 512,
  /** Envelopes in one result: the job's statement and one per output. */
  statements: 513,
  /** Events in one page or frame. */
  eventsPage: 500,
  /** Items in one list page. */
  listPage: 200,
  /** Subscriptions on one socket; they live in its 16 KiB attachment. */
  subscriptions: 32,
  /** Sockets of one object. The platform allows 32,768; each costs memory when it is slow. */
  sockets: 4_096,
  /** Bytes of one inbound frame. */
  frameBytes: 16 * 1024,
  /** Frames of one socket that are not valid, before it is closed (4400). */
  badFrames: 10,
  /** Bytes sent to one socket that its client has not confirmed to have read (`mark`); then it gets no more until it has. */
  socketBufferBytes: 1024 * 1024,
  /** The same for all sockets of one object together, a quarter of its memory: with many sockets each has a smaller share. */
  objectBufferBytes: 32 * 1024 * 1024,
  /** A socket whose client confirmed nothing for so long is closed as too slow (1013) when there is something to send, ms. */
  socketStallMs: 30_000,
  /** A socket that has not subscribed in this time is the first to go when an object has no socket to spare, ms. */
  firstFrameMs: 10_000,
  /** Log bytes sent to one subscription without an `ack`, before `skip`. */
  logCreditBytes: 1024 * 1024,
  /** Life of a WebSocket ticket, ms. */
  ticketMs: 30_000,
  /** Life of a runner's session, ms. */
  sessionMs: 15 * 60_000,
  /** Life of a person's login, ms: a working day, after which the key is asked again. */
  loginMs: 12 * 3600_000,
  /** Logins of one key at a time: a few machines and browsers. */
  loginsPerMember: 16,
  /** Deployments, or beginnings of their ids, that one caller is confined to. */
  confinement: 32,
  /** How long a socket may go on before its client has to show its credential anew, ms. Whoever follows resumes without a gap. */
  admissionMs: 6 * 3600_000,
  /** Life of a challenge, ms. */
  challengeMs: 60_000,
  /** Life of a registration token, ms. */
  registrationMs: 3600_000,
  /** How long a panel may take to say who somebody is, ms; beyond it the answer is no. */
  authorizerMs: 3_000,
  /** How long a panel's answer may be believed at most, ms. */
  authorizerCacheMs: 300_000,
  /** Requests of one caller in a minute: a page that polls ten times a second, a panel that submits ten jobs a second. */
  readsPerMinute: 6_000,
  writesPerMinute: 1_200,
  /** Requests with a wrong credential from one address in a minute: enough for a typing error in a script, useless for guessing. */
  strangersPerMinute: 60,
  /** How long the edge may believe an earlier look-up of a credential, ms: a revocation takes effect within it. */
  credentialCacheMs: 5_000,
  /** Clock difference tolerated for a webhook, s, both ways (Standard Webhooks). */
  webhookToleranceSeconds: 300,
  /** How long a webhook's id is remembered, ms: beyond the longest retry schedule. */
  deliveryDedupeMs: 4 * 24 * 3600_000,
  /** Deliveries kept per namespace for people to read. */
  deliveriesKept: 5_000,
  /** Jobs that the index of one namespace lists; older ones are found through their deployment alone. */
  jobsIndexed: 100_000,
  /** Locks of one job. */
  jobLocks: 16,
  /** Jobs of one namespace that have locks or wait for some: at most one of each deployment, and those whose end nobody saw. All are looked at for each. */
  lockRequests: 2_000,
  /** Locks that one deployment has still to give back: its namespace cannot be reached. */
  lockReleases: 200,
  /** Jobs that a list of locks names as waiting for one; further ones are counted. */
  lockWaitersShown: 20,
  /** Tokens, runners, hooks, rules, signers of one namespace. */
  tokens: 1_000,
  runners: 10_000,
  members: 1_000,
  triggers: 200,
  /** Bytes of one secret: a private key, a kubeconfig or a chain of certificates fits. */
  secretBytes: 16 * 1024,
  /** Characters of a sealed box: the secret, its binding and a key wrap for each of `secretRunners`, in base64. */
  secretBoxCharacters: 48 * 1024,
  /** Secrets of one job; its boxes are one row together with the job. */
  jobSecrets: 16,
  /** Runners that one box is sealed to. */
  secretRunners: 64,
  /** Parts of one list in the condition of a secret. */
  secretConditions: 32,
  /** Secrets stored in one namespace. */
  secretsStored: 200,
  /** Keys of one hook: each may cost a verification for a webhook of a stranger. */
  hookSigners: 16,
  /** Secrets of one hook: a change-over needs two. */
  hookSecrets: 4,
  /** Hosts to which the states of one hook's commits may be reported. */
  statusHosts: 8,
  /** Changed paths that a push tells, and bytes of them together as JSON: with the rest of the push they stay below the 20 KB that webhooks should have. */
  changedPaths: 500,
  changedPathsBytes: 12 * 1024,
  /** Patterns of paths in all rules of a namespace: every path of a push may be compared with every one. */
  pathPatterns: 256,
  /** Delegates of a repository, and other people that a rule names. */
  delegates: 64,
  /** Rows of an audit log that are kept, and characters of one. Older ones go together with their signed heads, but for the last of these. */
  auditKept: 10_000,
  auditEntryCharacters: 4_096,
  /** The head of an audit log is signed after so many rows, or so long after a row, ms: in between the log is only as good as who holds it. */
  auditSignRows: 64,
  auditSignMs: 10 * 60_000,
  /** Fenced writes that a deployment keeps in memory until its namespace was told. */
  fencedWrites: 100,
  /** Repositories of one workspace: each is a mirror, a lock and a checkout. */
  workspaceRepositories: 32,
  /** Changes that are listed of one workspace: a folder of dependencies fits. */
  workspaceChanges: 200_000,
  /** Of the paths that a run has changed, how many are named in its result, and characters of each: enough to know it by, and small in an event. */
  runChangedPaths: 20,
  runChangedPathCharacters: 200,
  /** Bytes of one file that is read from or written to a workspace through its provider, which holds it in memory. */
  workspaceFileBytes: 64 * 1024 * 1024,
  /** Arguments of a command in the workspace of a run, and characters of each. */
  execArguments: 64,
  execArgumentCharacters: 4 * 1024,
  /** Bytes that one frame of such a session carries: small beside a window, large beside a key press. */
  execFrameBytes: 32 * 1024,
  /** Bytes that one side may have sent before the other confirms that it has them: what a broker may hold of a session, twice over. */
  execWindowBytes: 256 * 1024,
  /** How long a session waits for both its ends, ms: a runner that is full comes to its pool every few seconds. */
  execJoinMs: 20_000,
  /** A session in which nothing is said ends after this, and every one after that, ms. */
  execIdleMs: 15 * 60_000,
  execTotalMs: 4 * 3600_000,
  /** Sessions of one deployment: one for each run that is at work or kept, within reason. */
  execSessions: 16,
  /** Bytes of a task file of a repository: it is written by hand. */
  taskFileBytes: 256 * 1024,
  /** Jobs of one task file, and steps that their matrices make of them: each is said in the result of one run. */
  taskFileJobs: 64,
  taskFileSteps: 256,
  /** Characters of what a run says of the jobs of a task file, as JSON: it has to fit into a statement. */
  expansionCharacters: 64 * 1024,
  /** Characters of the bodies of all jobs that a task file becomes, as JSON: they are written in one transaction, each with what was submitted. */
  expandedCharacters: 8 * 1024 * 1024,
  /** Steps that build, by whose last success later ones can be skipped as unchanged: each stands in the record of its deployment, with every write of that. */
  builtSteps: 64,
  /** Faults of one task file that are told; further ones come to light when these are mended. */
  taskFileFaults: 100,
  /** Lists of one matrix, values of one list, and characters of a value: it is a part of a step's name. */
  matrixLists: 8,
  matrixValues: 64,
  matrixValueCharacters: 128,
  /** Schedules of one task file, and of one deployment, which may have several branches: each is told with every change of the deployment. */
  taskFileSchedules: 8,
  deploymentSchedules: 16,
  /** Characters of a schedule's cron expression. */
  cronCharacters: 128,
  /** Least time between two firings of a schedule, ms: each is a job, with its alarm and its machine, that nobody is there to stop. */
  scheduleIntervalMs: 15 * 60_000,
  /** Attempts of an outbox row before it is parked until the next wake-up of its object. */
  outboxAttempts: 10,
} as const;
