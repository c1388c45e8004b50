/**
 * Something that the person at the terminal has to put right. Its message is the one sentence they read,
 * without a stack.
 */
export class Problem extends Error {}
