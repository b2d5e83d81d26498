-- question: how many devices were active in the {window} days that end on each day (wau, mau28)?
-- grain: month and dimensions; one count per day, which reach into the next month
-- inputs: activity, links
-- owner: ameles-queries
-- A device counts with the attributes of the month of its last active day in the
-- window: `window_days` leaves to the next month's row what is that row's.

-- statement: value
SELECT {dims}a.month, sum_bits(window_days(a.month, a.days, n.days, {window})) AS devices
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month) AND n.month BETWEEN {from} AND next_month({to})
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month

-- statement: people
SELECT {dims}a.month,
  people(window_days(a.month, a.days, n.days, {window}), a.device, {k}) AS devices
  , people(window_days(a.month, l.days, n.days, {window}), l."user", {k}) AS users -- if user
FROM activity a
LEFT JOIN activity n ON n.device = a.device AND n.month = next_month(a.month) AND n.month BETWEEN {from} AND next_month({to})
LEFT JOIN links l ON l.device = a.device AND l.month = a.month -- if user
WHERE a.month BETWEEN {from} AND {to}{filter}
GROUP BY {by}a.month
