// java.net.http: java Client URL PROXY|direct AUTHORITY
import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import java.util.stream.IntStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    public static void main(String[] words) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        int number = 0;
        try (var pem = Files.newInputStream(Path.of(words[2]))) {
            for (var one : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                roots.setCertificateEntry("ca" + number++, one);
            }
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        for (HttpClient.Version version : HttpClient.Version.values()) {
            var building = HttpClient.newBuilder().version(version).sslContext(context);
            building.followRedirects(HttpClient.Redirect.NORMAL);
            if (!words[1].equals("direct")) {
                URI proxy = URI.create(words[1]);
                building.proxy(ProxySelector.of(new InetSocketAddress(proxy.getHost(), proxy.getPort())));
            }
            HttpClient client = building.build();
            for (String path : new String[] {"/page.html", "/text", "/large", "/none", "/moved", "/nothing"}) {
                System.out.println(ask(client, HttpRequest.newBuilder(URI.create(words[0] + path)).build()));
            }
            byte[] body = new byte[500_000];
            System.out.println(ask(client, HttpRequest.newBuilder(URI.create(words[0] + "/echo"))
                .POST(HttpRequest.BodyPublishers.ofByteArray(body)).build()));
            System.out.println(ask(client, HttpRequest.newBuilder(URI.create(words[0] + "/echo"))
                .expectContinue(true).POST(HttpRequest.BodyPublishers.ofString("hello")).build()));
            IntStream.range(0, 20).parallel()
                .mapToObj(n -> ask(client, HttpRequest.newBuilder(URI.create(words[0] + "/text?" + n)).build()))
                .sorted().forEach(System.out::println);
        }
        System.exit(0);
    }

    static String ask(HttpClient client, HttpRequest request) {
        try {
            HttpResponse<byte[]> answer = client.send(request, HttpResponse.BodyHandlers.ofByteArray());
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(answer.body());
            return answer.statusCode() + " " + (request.uri().getScheme().equals("https") ? answer.version() : "") + " " + HexFormat.of().formatHex(digest, 0, 6);
        } catch (Exception error) {
            return "error " + error.getClass().getSimpleName();
        }
    }
}
