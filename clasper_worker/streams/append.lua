-- Append what runs of turns have reported since their last batch.
--
-- KEYS, two for each turn: its stream, and what is known of its newest run, a hash:
--   n  the run's number          q  of its newest batch
--   c  a step whose chunks count w  the run that wrote them; nothing where there are none
--   b  bytes of the stream       e  how the run ended: ok or no
--   j  the run's job
-- ARGV: a stream's bytes at most, then eleven for each turn: the run's number, the batch's, whether it
--   says anew what may be lost, the first step that the model is asked for in it (0: none), the step
--   whose chunks count after it ('' as before, 0 none), ok or no where the run ends with it, seconds
--   to live, the job, the key that leads from the job to the turn ('' none) and the turn, and the
--   events: a JSON array, or ''.
-- Answers for each: 1 appended, now or by an earlier try; 0 refused, another run has taken over;
--   -1 earlier batches of the run are lost; -2 it cannot be written.
local call = redis.call
local most = tonumber(ARGV[1])

local function append(stream, state, at)
  local run, batch, anew = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2] == '1'
  local first, counts, ended = tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5]
  local seconds, job, turn_key, turn = ARGV[at + 6], ARGV[at + 7], ARGV[at + 8], ARGV[at + 9]
  local events = ARGV[at + 10]
  local known = call('HMGET', state, 'n', 'q', 'c', 'w', 'b', 'e')
  local newest, before = tonumber(known[1] or 0), tonumber(known[2] or 0)
  if run < newest or (run > newest and known[6] == 'ok') then return 0 end
  if run > newest then before = 0 end
  if batch <= before then return 1 end
  if batch ~= before + 1 and not anew then return -1 end
  local live, writer, bytes = tonumber(known[3] or 0), tonumber(known[4] or 0), tonumber(known[5] or 0)
  if live > 0 and writer ~= run and first > 0 and first <= live then
    -- The run before had streamed of what this one asks again.
    for step = first, live do
      call('XADD', stream, '*', 'e', '[{"type":"retry","step":' .. step .. '}]')
    end
    live = 0
  end
  if counts ~= '' then live, writer = tonumber(counts), run end
  if events ~= '' and bytes + #events <= most then
    call('XADD', stream, '*', 'e', events)
  end
  call('HSET', state, 'n', ARGV[at], 'q', batch, 'c', live, 'w', string.format('%.0f', writer),
    'b', bytes + #events, 'e', ended, 'j', job)
  call('EXPIRE', state, seconds)
  call('EXPIRE', stream, seconds)
  if turn_key ~= '' then call('SET', turn_key, turn, 'EX', seconds) end
  return 1
end

local answers = {}
for i = 1, #KEYS / 2 do
  local done, answer = pcall(append, KEYS[2 * i - 1], KEYS[2 * i], 2 + (i - 1) * 11)
  if done then
    answers[i] = answer
  elseif string.find(type(answer) == 'table' and answer.err or tostring(answer), 'WRONGTYPE', 1, true) then
    answers[i] = -2
  else
    error(answer)  -- Redis is full, or a replica: it is tried again
  end
end
return answers
