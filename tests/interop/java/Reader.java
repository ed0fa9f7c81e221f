import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.List;
import java.util.Map;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceProvider;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;

/**
 * A Java caller: for each line that it reads, it prints the ids of the replicas that Curator's
 * provider would call, and all registrations with their fields, as one line of JSON.
 *
 * <p>Arguments: servers with chroot, base path, service, class of the payload.
 */
public final class Reader {
    public static void main(String[] arguments) throws Exception {
        try (CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[0], new RetryOneTime(100))) {
            client.start();
            read(client, arguments[1], arguments[2], Class.forName(arguments[3]));
        }
    }

    private static <T> void read(
            CuratorFramework client, String base, String service, Class<T> payload)
            throws Exception {
        try (ServiceDiscovery<T> discovery =
                        ServiceDiscoveryBuilder.builder(payload)
                                .client(client)
                                .basePath(base)
                                .serializer(new JsonInstanceSerializer<>(payload))
                                .build();
                ServiceProvider<T> provider =
                        discovery.serviceProviderBuilder().serviceName(service).build()) {
            discovery.start();
            provider.start();
            BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
            while (input.readLine() != null) {
                System.out.println(
                        new ObjectMapper()
                                .writeValueAsString(
                                        Map.of(
                                                "offered", offered(provider),
                                                "all", discovery.queryForInstances(service))));
            }
        }
    }

    private static <T> List<String> offered(ServiceProvider<T> provider) throws Exception {
        return provider.getAllInstances().stream().map(ServiceInstance::getId).toList();
    }
}
