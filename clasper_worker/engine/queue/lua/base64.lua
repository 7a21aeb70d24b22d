-- Base64, as stock producers encode bodies. Redis has no function for it.

local values
local function base64_values()
  local alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  local found = { [string.byte('=')] = 0 }
  for i = 1, 64 do found[string.byte(alphabet, i)] = i - 1 end
  return found
end

local function base64_decode(text)
  -- Without calls of floor and with sixteen characters at a time: this is most of the work of
  -- the intake. A character that is none of Base64's raises an error.
  values = values or base64_values()
  local v, byte, char = values, string.byte, string.char
  local out, n, length = {}, 0, #text
  if length % 4 ~= 0 then return nil end
  local i = 1
  while i + 15 <= length do
    local a, b, c, d, e, f, g, h, j, k, l, m, o, p, q, r = byte(text, i, i + 15)
    local w = ((v[a] * 64 + v[b]) * 64 + v[c]) * 64 + v[d]
    local x = ((v[e] * 64 + v[f]) * 64 + v[g]) * 64 + v[h]
    local y = ((v[j] * 64 + v[k]) * 64 + v[l]) * 64 + v[m]
    local z = ((v[o] * 64 + v[p]) * 64 + v[q]) * 64 + v[r]
    local w3, x3, y3, z3 = w % 256, x % 256, y % 256, z % 256
    w, x, y, z = (w - w3) / 256, (x - x3) / 256, (y - y3) / 256, (z - z3) / 256
    local w2, x2, y2, z2 = w % 256, x % 256, y % 256, z % 256
    n = n + 1
    out[n] = char((w - w2) / 256, w2, w3, (x - x2) / 256, x2, x3, (y - y2) / 256, y2, y3,
      (z - z2) / 256, z2, z3)
    i = i + 16
  end
  while i <= length do
    local a, b, c, d = byte(text, i, i + 3)
    local w = ((v[a] * 64 + v[b]) * 64 + v[c]) * 64 + v[d]
    local w3 = w % 256
    w = (w - w3) / 256
    n = n + 1
    out[n] = char((w - w % 256) / 256, w % 256, w3)
    i = i + 4
  end
  local decoded = table.concat(out)
  if string.sub(text, -2) == '==' then return string.sub(decoded, 1, -3) end
  if string.sub(text, -1) == '=' then return string.sub(decoded, 1, -2) end
  return decoded
end
