import { DurableObject } from "cloudflare:workers";
import type { Env } from "../src/deployment.ts";
import { type ClassName, MIGRATIONS, type Migration, migrate, stampIfAny } from "./schema.ts";
import { UnreadableState } from "./stored.ts";

type ObjectClass = new (ctx: DurableObjectState, env: Env) => DurableObject<Env>;

/** They read rows of their books as they need them, and not all at their start. No governed call asks them. */
const READ_LATER: ReadonlySet<ClassName> = new Set(["ApprovalDesk", "MandateBook", "Retention", "Switchboard"]);

/** How often one that refuses is rung, where it had an alarm: when a release that can read it is there, its work goes on. */
const ALARM_MS = 60_000;

/**
 * The class as it is deployed. Before the constructor reads anything, what is stored is brought to this release's version. What
 * this release can't read, it does not touch: every method rejects, which closes the caller's door, and the alarm is put off.
 *
 * A constructor that throws would close the doors as well, but the platform gives an alarm up that has failed some times.
 */
export function checked<Class extends ObjectClass>(
  name: ClassName,
  Class: Class,
  migrations: readonly Migration[] = MIGRATIONS[name],
): Class {
  const Refusing = refusing(name, Class);
  const Starting = READ_LATER.has(name) ? readingLater(name, Class) : Class;
  const start = (ctx: DurableObjectState, env: Env): DurableObject<Env> => {
    try {
      const isThere = migrate(ctx.storage, migrations);
      const object = new Starting(ctx, env);
      if (!isThere) stampIfAny(ctx.storage.sql, migrations.length);
      return object;
    } catch (error) {
      if (!(error instanceof UnreadableState)) throw error;
      // Once for each start of the object.
      tell(name, ctx, `${error.message}. It refuses everything`);
      return new Refusing(ctx, env);
    }
  };
  return new Proxy(Class, { construct: (_, [ctx, env]) => start(ctx, env) });
}

/** For the operator. Its id is the platform's; nothing of what is stored is in it. */
const tell = (name: ClassName, ctx: DurableObjectState, words: string): void =>
  console.error("state not readable", name, String(ctx.id), words);

const rejection = (name: ClassName): Error => new Error(`${name}: its state is not readable by this release`);

/** The class, whose methods reject like those of one that refuses where they come upon a row that can't be read. Others go on. */
function readingLater(name: ClassName, Class: ObjectClass): ObjectClass {
  /** Said once for each start. */
  const told = new WeakMap<DurableObjectState, Set<string>>();
  const refuse = (ctx: DurableObjectState, error: unknown): Error => {
    if (!(error instanceof UnreadableState)) throw error;
    const known = told.get(ctx) ?? new Set<string>();
    told.set(ctx, known);
    if (!known.has(error.message)) tell(name, ctx, `${error.message}. It refuses what hangs on that`);
    known.add(error.message);
    return rejection(name);
  };
  class ReadingLater extends Class {
    override async alarm(): Promise<void> {
      try {
        await super.alarm?.();
      } catch (error) {
        // The platform gives an alarm up that has failed some times.
        refuse(this.ctx, error);
        if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(Date.now() + ALARM_MS);
      }
    }
    /** Static: what stands in the prototype, callers from outside can call. */
    static async guarded(object: ReadingLater, work: () => unknown): Promise<unknown> {
      try {
        return await work();
      } catch (error) {
        throw refuse(object.ctx, error);
      }
    }
  }
  for (const method of methodsOf(Class))
    Object.defineProperty(ReadingLater.prototype, method, {
      // As a class has its methods.
      configurable: true,
      writable: true,
      value(this: ReadingLater, ...args: unknown[]) {
        const found = Reflect.get(Class.prototype, method) as (...args: unknown[]) => unknown;
        return ReadingLater.guarded(this, () => found.apply(this, args));
      },
    });
  return ReadingLater;
}

/** All methods of the class, and none of them does anything. */
function refusing(name: ClassName, Class: ObjectClass): ObjectClass {
  class Refusing extends DurableObject<Env> {
    override async alarm(): Promise<void> {
      await this.ctx.storage.setAlarm(Date.now() + ALARM_MS);
    }
  }
  const value = async (): Promise<never> => {
    throw rejection(name);
  };
  for (const method of methodsOf(Class)) Object.defineProperty(Refusing.prototype, method, { value });
  return Refusing;
}

/** What its callers can call. */
const methodsOf = (Class: ObjectClass): readonly string[] =>
  Object.entries(Object.getOwnPropertyDescriptors(Class.prototype)).flatMap(([method, { value }]) =>
    typeof value === "function" && method !== "constructor" && method !== "alarm" ? [method] : [],
  );
