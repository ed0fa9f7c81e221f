import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Map;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;

/**
 * Announces a server with Curator until its input ends. Reads lines "ENABLED STATUS", writes what
 * they say into the registration, and answers each with a line.
 *
 * <p>Arguments: servers with chroot, base path, service, id, address, port.
 */
public final class Announcer {
    private static String[] arguments;

    @SuppressWarnings("rawtypes") // Curator wants the payload's class, and Map has no other.
    public static void main(String[] given) throws Exception {
        arguments = given;
        try (CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[0], new RetryOneTime(100))) {
            client.start();
            try (ServiceDiscovery<Map> discovery =
                    ServiceDiscoveryBuilder.builder(Map.class)
                            .client(client)
                            .basePath(arguments[1])
                            // false: with the field "enabled", which Curator 2 did not know.
                            .serializer(new JsonInstanceSerializer<>(Map.class, false))
                            .thisInstance(instance(true, "UP"))
                            .build()) {
                discovery.start();
                System.out.println("announced");
                BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
                for (String line; (line = input.readLine()) != null; ) {
                    String[] words = line.split(" ");
                    discovery.updateService(instance(Boolean.parseBoolean(words[0]), words[1]));
                    System.out.println("updated");
                }
            }
        }
    }

    @SuppressWarnings("rawtypes")
    private static ServiceInstance<Map> instance(boolean enabled, String status) throws Exception {
        // One level deeper, where Spring Cloud has its metadata.
        Map payload =
                Map.of(
                        "metadata",
                        Map.of("version", "3.1", "zone", "java", "instance_status", status));
        return ServiceInstance.<Map>builder()
                .name(arguments[2])
                .id(arguments[3])
                .address(arguments[4])
                .port(Integer.parseInt(arguments[5]))
                .payload(payload)
                .enabled(enabled)
                .build();
    }
}
