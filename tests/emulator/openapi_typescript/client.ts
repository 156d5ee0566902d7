// A client that has its types from the emulator's description alone.
import type { components, operations, paths } from "./emulator";

type Voucher = components["schemas"]["Voucher"];
type Body<P extends keyof paths> = paths[P] extends {
  post: { requestBody?: { content: { "application/json": infer B } } };
}
  ? B
  : never;
type Answer<O extends keyof operations> = operations[O] extends {
  responses: { 200: { content: { "application/json": infer A } } };
}
  ? A
  : never;

async function post<P extends keyof paths>(path: P, body: Body<P>): Promise<unknown> {
  const answer = await fetch(`http://127.0.0.1:8000${path}`, {
    method: "POST",
    body: JSON.stringify(body),
  });
  return answer.json();
}

export async function makeBatch(key: string): Promise<number> {
  const made = (await post("/_emulator/batches", {
    key,
    quantity: 5,
    type: "CASH",
    amount_sen: 500,
  })) as Answer<"postBatches">;
  await post("/_emulator/fail-next", { operation: "issue", fault: "drop-after-commit" });
  return made.balance;
}

export function isUsable(voucher: Voucher): boolean {
  const member: string | undefined = voucher.memberProfile?.name;
  return member !== undefined && (voucher.status === "ISSUED" || voucher.status === "REDEEMED");
}

export function nextCursor(page: Answer<"vouchers">): string | null | undefined {
  return page.meta.cursor;
}
