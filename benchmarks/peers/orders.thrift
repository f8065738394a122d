// The calls that are measured, for thriftpy2.

struct Item {
  1: required string sku
  2: required i32 qty
  3: required double price
}

struct Order {
  1: required i64 id
  2: required string user
  3: required list<Item> items
  4: required string note
}

service Orders {
  Order get_order(1: i64 number)
  binary echo(1: binary body)
  binary download(1: i64 size)
  i64 upload(1: binary body)
}
