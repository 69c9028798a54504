import { DurableObject } from "cloudflare:workers";
import type { Env } from "../src/deployment.ts";
import { type ClassName, MIGRATIONS, type Migration, migrate, stampIfAny } from "./schema.ts";
import { UnreadableState } from "./stored.ts";

type ObjectClass = new (ctx: DurableObjectState, env: Env) => DurableObject<Env>;

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
  const start = (ctx: DurableObjectState, env: Env): DurableObject<Env> => {
    try {
      const isThere = migrate(ctx.storage, migrations);
      const object = new Class(ctx, env);
      if (!isThere) stampIfAny(ctx.storage.sql, migrations.length);
      return object;
    } catch (error) {
      if (!(error instanceof UnreadableState)) throw error;
      // For the operator, once for each start of the object. Its id is the platform's; nothing of what is stored is in it.
      console.error("state not readable", name, String(ctx.id), `${error.message}. It refuses everything`);
      return new Refusing(ctx, env);
    }
  };
  return new Proxy(Class, { construct: (_, [ctx, env]) => start(ctx, env) });
}

/** All methods of the class, and none of them does anything. */
function refusing(name: ClassName, Class: ObjectClass): ObjectClass {
  class Refusing extends DurableObject<Env> {
    override async alarm(): Promise<void> {
      await this.ctx.storage.setAlarm(Date.now() + ALARM_MS);
    }
  }
  const value = async (): Promise<never> => {
    throw new Error(`${name}: its state is not readable by this release`);
  };
  const methods = Object.entries(Object.getOwnPropertyDescriptors(Class.prototype));
  for (const [method, { value: found }] of methods)
    if (typeof found === "function" && method !== "constructor" && method !== "alarm")
      Object.defineProperty(Refusing.prototype, method, { value });
  return Refusing;
}
