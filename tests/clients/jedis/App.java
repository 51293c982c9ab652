import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.RedisSentinelClient;

/** Writes all the time, and says on a line what became of each write. */
public class App {
  static final long BEGUN = System.nanoTime();

  public static void main(String[] arguments) throws Exception {
    String password = System.getenv("PASSWORD");
    Set<HostAndPort> nodes =
        Stream.of(System.getenv("NODES").split(" ")).map(host -> new HostAndPort(host, 26379)).collect(Collectors.toSet());

    // guide: begin
    RedisSentinelClient redis =
        RedisSentinelClient.builder()
            .masterName("cache")
            .sentinels(nodes)
            .clientConfig(DefaultJedisClientConfig.builder().user("app").password(password).build())
            .build();
    redis.set("greeting", "hello");
    // guide: end

    for (int n = 1; ; n++) {
      try {
        redis.sadd(System.getenv("KEY"), String.valueOf(n));
        say("\"acked\":" + n);
      } catch (RuntimeException error) {
        say("\"error\":\"" + error.getClass().getSimpleName() + "\",\"message\":\"" + String.valueOf(error.getMessage()).replaceAll("[^ -!#-\\[\\]-~]", " ") + "\"");
      }
      Thread.sleep(50);
    }
  }

  static void say(String what) {
    System.out.println("{\"at\":" + (System.nanoTime() - BEGUN) / 1000000 + "," + what + "}");
  }
}
