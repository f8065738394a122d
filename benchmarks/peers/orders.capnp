# The service that pycapnp is measured by. Read when the benchmark starts.
@0xb8f1d3a2c64e7905;

struct Item {
  sku @0 :Text;
  qty @1 :Int64;
  price @2 :Float64;
}

struct Order {
  id @0 :Int64;
  user @1 :Text;
  items @2 :List(Item);
  note @3 :Text;
}

interface Orders {
  getOrder @0 (number :Int64) -> (order :Order);
  echo @1 (body :Data) -> (body :Data);
  download @2 (size :Int64) -> (body :Data);
  upload @3 (body :Data) -> (size :Int64);
}
