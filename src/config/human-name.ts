import { emailDigest } from "../identity/email-digest.ts";

/** Pure: how a configuration names a human, by e-mail address or by id. */

/** As records and switches know a human: base64url of a SHA-256. */
const HUMAN_ID = /^[A-Za-z0-9_-]{43}$/;
const ADDRESS = /^[^\s@]+@[^\s@]+$/;

const isAddress = (name: string): boolean => name.includes("@");

export const isHumanName = (name: string): boolean => HUMAN_ID.test(name) || (name.length <= 320 && ADDRESS.test(name));
export const HUMAN_NAME = "an e-mail address, or a human's id of 43 characters";

/** What a human goes by in records, where an address has no place. */
export const keyOfHumanName = (name: string): string => (isAddress(name) ? emailDigest(name) : name);
