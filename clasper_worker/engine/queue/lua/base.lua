-- The scheduler of turns, inside the broker's Redis: what moves a message does so in one step.
--
--   stock list ──intake──► message + lane ──► ready list of its tenant ──select──► running, leased
--                              ▲                                                       │
--                              └───────── lapsed, released (front) ◄──────────────────┤
--                                                                    settled, dead ◄───┘
--
-- Keys (all under "clasper:"; a tag is a message's own name, a token is "tag#delivery"):
--   message:<tag>          hash: raw, q(ueue), j(ob), t(enant), s(ession lane), n (of its newest
--                          delivery, 0 before the first), w(orker that has it), l(apses that it is
--                          blamed for), b(usy policy), v(erdict), u (turn), g(roup of collected
--                          tags), d(oom: why this delivery failed for good), at (ms, when it was
--                          taken in), ra (ms, when the one before it in its session had ended),
--                          y(ields to its session's next turn), p (the message of the same job
--                          that came before it)
--   lane:<id>              list: the session's messages in order of arrival; the first is its turn
--   ready:<queue>:<tenant> list: messages that may run; tenants:<queue> list: whose turn it is;
--   rotating:<queue>       set: the tenants in that list
--   running                set of tags; leases: the same, by when (ms) they lapse;
--   leases:pulse, :hold    when (ms) somebody last looked for lapsed leases; not before when to
--   inflight               hash: how many messages of a tenant run; capped: the tenants that were
--                          passed over because of it, and are in no rotation
--   jobs                   hash: job id → tag; turn-jobs:<turn>: set of job ids, also of ended ones
--   cancelled              jobs and turns that are not to run if they come, by when (ms) to forget it
--   suspect, suspects      the one running message that has lost many workers; those that wait
--   lost:<worker>          how often the most blamed of its messages was before, for two leases' time
--   dead, dead:<id>        dead letters, by time (ms)
--   apart:<id>             string: the webhook of a dead letter, for as long as a delivery lives;
--   together               list: dead letters whose webhooks are not kept apart yet
--   untold                 list: those of them whose callers have not been told yet
--   queues                 set: those that workers were seen to consume; tick: a counter
--   depth:ready:<queue>, depth:behind:<queue>
--                          tags by when (ms) they were taken in: what may run, and what waits behind
--                          another of its session (or another suspect): counted without a search
--   workers                the lease keepers that looked for lapsed leases lately, by when (ms)
--
-- ARGV[1]: what to do, ARGV[2]: how (both JSON), ARGV[3]: the message that it is about, for some.

local ask, how = cjson.decode(ARGV[1]), cjson.decode(ARGV[2])
local call = redis.call
local P = 'clasper:'
local clock = call('TIME')
local microseconds = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now = math.floor(microseconds / 1000)
local deliveries, interrupts, buried = {}, {}, {}
local put, queued = {}, {}  -- reasons of dead letters; turns that wait for their session

local function field(tag, ...) return call('HMGET', P .. 'message:' .. tag, ...) end

local function depth(state, queue) return P .. 'depth:' .. state .. ':' .. queue end
