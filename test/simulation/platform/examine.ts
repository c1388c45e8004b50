// In place of `runner/src/doctor/examine.ts`: a machine in good order, whose disk may be full.
export * from "../../../runner/src/doctor/examine.ts";
import { currentDisk } from "./computer.ts";

const ROOM_BYTES = 1e12;

export async function examineBriefly(): Promise<[]> {
  return [];
}

export async function freeBytesAt(): Promise<number> {
  return currentDisk().isFull ? 0 : ROOM_BYTES;
}
