/**
 * The storage of an `AgentInstance` as the last release without versions left it (the running totals know no `bytesAhead`): enrolled,
 * one call answered, one running. Dumped from that code; blobs as hex.
 */
export const INSTANCE_V0 = {
  atMs: 1795385195235,
  tables: [
    {
      name: "kept",
      sql: "CREATE TABLE kept (kind TEXT, id TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
      rows: [
        {
          kind: "enrolment",
          id: "",
          json: '{"instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc","human":"human-1","emailDigest":null,"agent":"triage-bot","agentVersion":"1.0.0","manifest":{"model":"m","promptDigest":"sha256:0","tools":{}},"client":"build-platform","chain":[{"client":"build-platform","agent":"triage-bot","agentVersion":"1.0.0","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc"}],"ancestors":[],"parentScope":null,"groupsAtMs":1795385195111,"mandate":null,"rosterShard":1,"task":{"id":"build-platform_t1","purpose":"test","deadlineMs":1795388795111},"grant":"grant-1","subject":"subject-1","scope":[{"type":"http","upstream":"github","operations":["GET /repos/{owner}/{repo}/issues","GET /repos/{owner}/{repo}/contents/{+path}","POST /repos/{owner}/{repo}/issues/{number}/comments","PUT /repos/{owner}/{repo}/contents/{+path}"],"where":{"owner":["acme"]}}],"groups":["engineering"],"limits":{"callsPerSecond":1000,"burst":1000,"concurrency":100,"calls":10000,"bytes":1073741824,"units":{},"refusalsRecordedPerMinute":5},"refreshDigest":"digest-1"}',
        },
      ],
    },
    {
      name: "log_0",
      sql: "CREATE TABLE log_0 ( id INTEGER PRIMARY KEY, seq INTEGER, jti TEXT, jti_until_ms INTEGER, body_of INTEGER, body_part TEXT, body_index INTEGER, salt BLOB, raw INTEGER, state TEXT, line TEXT, body BLOB)",
      rows: [
        {
          id: 1,
          seq: 0,
          jti: "b845477c-a98e-4861-aa1e-8a72b8823a61",
          jti_until_ms: 1795385375111,
          body_of: 0,
          body_part: "claims",
          body_index: 0,
          salt: { hex: "b96cd38c141e77d1a3dd39c40087deef" },
          state:
            '{"usage":{"calls":0,"bytes":0,"units":{},"tokens":1000,"tokensAtMs":1795385195205},"open":[],"grantsExpireAtMs":1795385495205,"stopped":null}',
          line: '{"v":1,"type":"enrolled","seq":0,"at":1795385195205,"prev":"0000000000000000000000000000000000000000000000000000000000000000","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc","agent":"triage-bot","agentVersion":"1.0.0","manifestDigest":"49b6ed5ab8d5c6c85661f25c3a0fafef4a45c1a7d6f660c5c096f729c895a44a","task":"build-platform_t1","human":"human-1","client":"build-platform","chain":[{"client":"build-platform","agent":"triage-bot","agentVersion":"1.0.0","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc"}],"grant":"grant-1","deployment":"test","manifest":{"model":"m","promptDigest":"sha256:0","tools":{}},"purpose":"test","deadline":1795388795111,"scope":[{"type":"http","upstream":"github","operations":["GET /repos/{owner}/{repo}/issues","GET /repos/{owner}/{repo}/contents/{+path}","POST /repos/{owner}/{repo}/issues/{number}/comments","PUT /repos/{owner}/{repo}/contents/{+path}"],"where":{"owner":["acme"]}}],"limits":{"callsPerSecond":1000,"burst":1000,"concurrency":100,"calls":10000,"bytes":1073741824,"units":{},"refusalsRecordedPerMinute":5},"claims":{"digest":"d73ee8e451a2d9cace11faa65bee2fe23e7383311f072ad3704332832a0854ea","bytes":28,"mediaType":"application/json","coding":"identity","complete":true},"parent":null}',
          body: { hex: "7b22656d61696c223a226164614061636d652e6578616d706c65227d" },
        },
        {
          id: 2,
          seq: 1,
          jti: "fcbe258c-ac8d-4c21-97e4-70210fbde790",
          jti_until_ms: 1795385375222,
          state:
            '{"usage":{"calls":1,"bytes":0,"units":{},"tokens":999,"tokensAtMs":1795385195226},"open":[1],"grantsExpireAtMs":1795385495205,"stopped":null}',
          line: '{"v":1,"type":"call","seq":1,"at":1795385195226,"prev":"758b02cce71d5749c35781b3e53e90d8198eff698e42068832404894d46995c6","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc","agent":"triage-bot","agentVersion":"1.0.0","manifestDigest":"49b6ed5ab8d5c6c85661f25c3a0fafef4a45c1a7d6f660c5c096f729c895a44a","task":"build-platform_t1","human":"human-1","client":"build-platform","chain":[{"client":"build-platform","agent":"triage-bot","agentVersion":"1.0.0","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc"}],"grant":"grant-1","deployment":"test","upstream":"github","method":"GET","target":"/github/repos/acme/widgets/issues","headers":[],"body":null,"decision":{"allowed":true,"ceilings":[{"layer":"entitlement","at":"entitlements.groups.engineering[0]","operation":"GET /repos/{owner}/{repo}/issues"},{"layer":"agent","at":"agents.triage-bot.ceiling[0]","operation":"GET /repos/{owner}/{repo}/issues"},{"layer":"boundaries","at":"boundaries[0]","operation":"GET /repos/{owner}/{repo}/issues"}]}}',
        },
        {
          id: 3,
          seq: 2,
          body_of: 1,
          body_part: "answer",
          body_index: 0,
          salt: { hex: "50007842e06418db01e5ebeb3bd28a64" },
          state:
            '{"usage":{"calls":1,"bytes":2,"units":{},"tokens":999,"tokensAtMs":1795385195226},"open":[],"grantsExpireAtMs":1795385495205,"stopped":null}',
          line: '{"v":1,"type":"answer","seq":2,"at":1795385195232,"prev":"0af2ccf2b91201d9f88f792ccca31062d26eb750d0cb71b9360fb9acedac2ca8","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc","agent":"triage-bot","agentVersion":"1.0.0","manifestDigest":"49b6ed5ab8d5c6c85661f25c3a0fafef4a45c1a7d6f660c5c096f729c895a44a","task":"build-platform_t1","human":"human-1","client":"build-platform","chain":[{"client":"build-platform","agent":"triage-bot","agentVersion":"1.0.0","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc"}],"grant":"grant-1","deployment":"d2b974a0-6881-446f-945e-6e9968710903","call":1,"outcome":"complete","status":200,"headers":[],"body":{"digest":"e6f6ebc35cc3b5bba7f767fa4c9a292ab0ca2e1d68b6a4913e40de0d48ab57a9","bytes":2,"mediaType":"application/json","coding":"identity","complete":true},"passedBytes":2,"forwardedBytes":0,"timing":{"startedAtMs":1,"firstByteAtMs":2,"lastByteAtMs":2,"endedAtMs":3}}',
          body: { hex: "7b7d" },
        },
        {
          id: 4,
          seq: 3,
          jti: "454e55df-280d-4fe4-b3ef-5ee04d1177ba",
          jti_until_ms: 1795385375233,
          state:
            '{"usage":{"calls":2,"bytes":2,"units":{},"tokens":999,"tokensAtMs":1795385195235},"open":[3],"grantsExpireAtMs":1795385495205,"stopped":null}',
          line: '{"v":1,"type":"call","seq":3,"at":1795385195235,"prev":"5a1eb03f1efc2e804cc7b03e6a98b1b73fce2b34cd81365b42147f856a7c4a5a","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc","agent":"triage-bot","agentVersion":"1.0.0","manifestDigest":"49b6ed5ab8d5c6c85661f25c3a0fafef4a45c1a7d6f660c5c096f729c895a44a","task":"build-platform_t1","human":"human-1","client":"build-platform","chain":[{"client":"build-platform","agent":"triage-bot","agentVersion":"1.0.0","instance":"7H2ogwVpKljA2tu7fC0COsg1xX6wNNK2Vs36CIlLtsc"}],"grant":"grant-1","deployment":"test","upstream":"github","method":"GET","target":"/github/repos/acme/widgets/issues","headers":[],"body":null,"decision":{"allowed":true,"ceilings":[{"layer":"entitlement","at":"entitlements.groups.engineering[0]","operation":"GET /repos/{owner}/{repo}/issues"},{"layer":"agent","at":"agents.triage-bot.ceiling[0]","operation":"GET /repos/{owner}/{repo}/issues"},{"layer":"boundaries","at":"boundaries[0]","operation":"GET /repos/{owner}/{repo}/issues"}]}}',
        },
      ],
    },
  ],
} as const;
