// Signs up, reads the own profile, changes it and gets new tokens, by the client that
// is made of the document: node signup.js GATEWAY EMAIL. It prints what it learned.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Tokens = components["schemas"]["Tokens"];

const [gateway, email] = process.argv.slice(2);
if (gateway === undefined || email === undefined) {
  throw new Error("usage: node signup.js GATEWAY EMAIL");
}
const password = "correct horse battery staple";
const client = createClient<paths>({ baseUrl: gateway });
const bearer = (tokens: Tokens) => ({ Authorization: `Bearer ${tokens.accessToken}` });

const signUp = await client.POST("/api/v1/auth/signup", { body: { email, password, name: "Ada" } });
if (signUp.error) {
  throw new Error(`sign up: ${describe(signUp.error)}`);
}
if (!("user" in signUp.data.data) || signUp.data.data.tokens === undefined) {
  throw new Error("sign up: the address must be confirmed first");
}
const { user, tokens } = signUp.data.data;

const me = await client.GET("/api/v1/user/me", { headers: bearer(tokens) });
if (me.error) {
  throw new Error(`read the profile: ${describe(me.error)}`);
}
const changed = await client.PATCH("/api/v1/user/me", { headers: bearer(tokens), body: { bio: null, timezone: "Europe/Zurich" } });

const refreshed = await client.POST("/api/v1/auth/refresh", { body: { refreshToken: tokens.refreshToken } });
if (refreshed.error) {
  throw new Error(`get new tokens: ${describe(refreshed.error)}`);
}
const renewed: Tokens = refreshed.data.data.tokens;
const sessions = await client.GET("/api/v1/auth/sessions", { headers: bearer(renewed), params: { query: { limit: 10 } } });

// What is not as the document says does not compile.
// @ts-expect-error The password is missing.
const wrong = await client.POST("/api/v1/auth/login", { body: { email } });

console.log(JSON.stringify({
  id: user.id,
  profile: me.data.data.userId,
  timezone: changed.data?.data.timezone,
  outcome: refreshed.response.headers.get("X-Refresh-Outcome"),
  renewed: renewed.refreshToken !== tokens.refreshToken,
  current: sessions.data?.data.filter((s) => s.current).map((s) => s.id),
  session: tokens.sessionId,
  refused: wrong.error && "errors" in wrong.error ? wrong.error.errors?.map((e) => `${e.field} ${e.code}`) : undefined,
}));

function describe(error: components["schemas"]["Failure"] | components["schemas"]["Problem"]): string {
  return `${error.code} ${"message" in error ? error.message : error.detail}`;
}
